// Makes elements without markup in strings, so that text from a server is never taken for HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Place a node in its container, in pixels from the top left. */
export function placed(x, y, node, { width, height }) {
  Object.assign(node.style, { left: `${x}px`, top: `${y}px` });
  if (width !== undefined) node.style.width = `${width}px`;
  if (height !== undefined) node.style.height = `${height}px`;
  return node;
}

/** Replace the content of a node, unless it is the same already, to keep the reader's scroll position and selection. */
export function show(node, ...children) {
  const fresh = node.cloneNode(false);
  fresh.append(...children);
  if (fresh.innerHTML !== node.innerHTML) node.replaceChildren(...children);
}

export function number(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: value >= 100 ? 0 : digits });
}
