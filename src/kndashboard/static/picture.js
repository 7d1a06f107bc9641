// Draws the pipeline: the calls, the instances, and their load.

import { number, svg } from "./dom.js";

const BOX = { width: 320, height: 142 };
const WIDE = { caller: 90, first: 190, second: 640, gap: 30 };
const NARROW = { indent: 30, gap: 46, top: 44 };
const STATES = { starting: "starting", ready: "ready", unready: "not ready", draining: "draining" };

/** Return the picture of a state, laid out for the available width. */
export function picture(state, narrow) {
  const places = narrow ? stacked(state) : sideBySide(state);
  const wires = state.calls.map((call) => wire(places[call.from], places[call.to], call, narrow));
  const names = Object.keys(places);
  const size = names.reduce((most, name) => Math.max(most, places[name].y + BOX.height), 0) + 8;
  return svg(
    "svg",
    { viewBox: `0 0 ${narrow ? 360 : 970} ${size}`, role: "img", "aria-label": described(state) },
    callers(state, places, narrow),
    events(state, places, narrow),
    wires,
    names.map((name) => box(name, state.services[name], places[name])),
  );
}

function ordered(state) {
  const names = Object.keys(state.services);
  const front = names.filter((name) => state.services[name].public);
  return [front, names.filter((name) => !front.includes(name))];
}

function sideBySide(state) {
  const [front, behind] = ordered(state);
  const rows = Math.max(front.length, behind.length);
  const total = rows * BOX.height + (rows - 1) * WIDE.gap;
  const column = (names, x) => {
    const height = names.length * BOX.height + (names.length - 1) * WIDE.gap;
    return names.map((name, i) => [name, { x, y: 12 + (total - height) / 2 + i * (BOX.height + WIDE.gap) }]);
  };
  return Object.fromEntries([...column(front, WIDE.first), ...column(behind, WIDE.second)]);
}

function stacked(state) {
  const [front, behind] = ordered(state);
  return Object.fromEntries(
    [...front, ...behind].map((name, i) => [
      name,
      { x: i < front.length ? 4 : NARROW.indent + 6, y: NARROW.top + i * (BOX.height + NARROW.gap) },
    ]),
  );
}

function box(name, service, { x, y }) {
  const current = service.revisions.filter((revision) => revision.instances.length);
  const instances = current.flatMap((revision) => revision.instances);
  const ready = sum(current, "ready");
  const inFlight = sum(current, "concurrency");
  const meant = current.reduce((total, revision) => total + revision.target * Math.max(1, revision.ready), 0);
  const load = meant ? inFlight / meant : 0;
  const inner = BOX.width - 32;
  const at = (row) => 30 + row * 26;
  return svg(
    "g",
    { transform: `translate(${x} ${y})`, "data-service": name, "data-ready": ready },
    svg("rect", { class: service.problem ? "box trouble" : "box", width: BOX.width, height: BOX.height, rx: 10 }),
    svg("text", { class: "name", x: 16, y: at(0) }, name),
    current.some((revision) => revision.panicking)
      ? svg("text", { class: "panic", x: BOX.width - 16, y: at(0), "text-anchor": "end" }, "panic mode")
      : null,
    instances.slice(0, 8).map((instance, i) =>
      svg("rect", { class: `instance ${instance.state}`, x: 17 + i * 22, y: at(1) - 13, width: 14, height: 14, rx: 3 },
        svg("title", {}, `${instance.name}: ${STATES[instance.state] ?? instance.state}`)),
    ),
    svg("text", { x: BOX.width - 16, y: at(1), "text-anchor": "end" }, `${ready} of ${sum(current, "desired")} ready`),
    svg("rect", { class: "track", x: 16, y: at(2) - 8, width: inner, height: 8, rx: 4 }),
    svg("rect", {
      class: load > 1 ? "load over" : "load", x: 16, y: at(2) - 8, width: inner * Math.min(1, load), height: 8, rx: 4,
    }),
    svg("text", { class: "muted", x: 16, y: at(3) - 4 }, `${number(inFlight)} in flight, meant for ${number(meant)}`),
    svg("text", { x: 16, y: at(4) - 6 }, `${number(service.rps)} req/s`),
    svg("text", { x: BOX.width - 16, y: at(4) - 6, "text-anchor": "end" },
      `p50 ${number(service.p50_ms)} · p99 ${number(service.p99_ms)} ms`),
  );
}

function wire(from, to, call, narrow) {
  const path = narrow
    ? `M 16 ${from.y + BOX.height} V ${to.y + BOX.height / 2} H ${to.x - 8}`
    : curve(from.x + BOX.width, from.y + BOX.height / 2, to.x - 8, to.y + BOX.height / 2);
  // The label stands beside the wire, on the side away from the caller.
  const beside = to.y > from.y ? 24 : -14;
  const [x, y] = narrow ? [to.x + 4, to.y - 10] : [to.x - 14, to.y + BOX.height / 2 + beside];
  const open = call.breaker > 1;
  return svg(
    "g",
    {},
    svg("path", { class: `wire${call.rps > 0 ? " busy" : ""}${open ? " open" : ""}`, d: path }),
    head(to.x, to.y + BOX.height / 2),
    svg("text", { class: "muted", x, y, "text-anchor": narrow ? "start" : "end" },
      open ? "breaker open" : `${number(call.rps)} calls/s`),
  );
}

function callers(state, places, narrow) {
  return ordered(state)[0].map((name) => {
    const { x, y } = places[name];
    const busy = state.services[name].rps > 0 ? "wire busy" : "wire";
    return narrow
      ? svg("g", {}, svg("path", { class: busy, d: `M 180 22 V ${y - 8}` }), down(180, y),
          svg("text", { class: "muted", x: 180, y: 16, "text-anchor": "middle" }, "callers"))
      : svg("g", {},
          svg("path", { class: busy, d: `M ${WIDE.caller} ${y + BOX.height / 2} H ${x - 8}` }),
          head(x, y + BOX.height / 2),
          svg("text", { class: "muted", x: WIDE.caller - 8, y: y + BOX.height / 2 + 5, "text-anchor": "end" }, "callers"));
  });
}

function events(state, places, narrow) {
  const place = places["extract-features"];
  const rates = Object.values(state.events.rates);
  if (!place || !rates.length) return null;
  const rate = rates.reduce((total, each) => total + each, 0);
  const text = `${number(rate)} events/s`;
  const right = place.x + BOX.width;
  return narrow
    ? svg("text", { class: "muted", x: right, y: place.y - 10, "text-anchor": "end" }, `${text} ↓`)
    : svg("text", { class: "muted", x: place.x - 14, y: place.y + 20, "text-anchor": "end" }, `${text} →`);
}

const curve = (x1, y1, x2, y2) => `M ${x1} ${y1} C ${(x1 + x2) / 2} ${y1}, ${(x1 + x2) / 2} ${y2}, ${x2} ${y2}`;
const head = (x, y) => svg("path", { class: "head", d: `M ${x} ${y} l -9 -5 v 10 z` });
const down = (x, y) => svg("path", { class: "head", d: `M ${x} ${y} l -5 -9 h 10 z` });
const sum = (items, key) => items.reduce((total, item) => total + item[key], 0);

function described(state) {
  const parts = Object.entries(state.services).map(
    ([name, service]) => `${name} with ${sum(service.revisions, "ready")} ready instances at ${number(service.rps)} requests a second`,
  );
  const calls = state.calls.map((call) => `${call.from} calls ${call.to}`);
  return [...parts, ...calls].join("; ");
}
