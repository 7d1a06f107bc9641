"""Everything that crosses a connection: headers, JSON, problem documents, CloudEvents, HTTP."""
