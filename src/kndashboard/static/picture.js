// Draws the pipeline: the calls, the triggers, the instances, and their load. Lines are SVG, and all text is HTML.

import { html, number, placed, svg } from "./dom.js";

const HEIGHT = 142, WIDEST = 330, LINES = 3;
const WIDE = { caller: 84, first: 150, wires: 170, gap: 30 };
const NARROW = { indent: 26, gap: 46, top: 44 };
const STATES = { starting: "starting", ready: "ready", unready: "not ready", draining: "draining" };

/** Return the picture of a state, laid out for a width in pixels. `described` says the same in words. */
export function picture(state, width) {
  const narrow = width < 700;
  const places = narrow ? stacked(state, width) : sideBySide(state, width);
  const subscriptions = routes(state);
  const height = Math.max(0, ...Object.values(places).map((place) => place.y + HEIGHT)) + 8;
  const drawn = [
    ...callers(state, places, narrow),
    ...state.calls.map((call) => wire(places[call.from], places[call.to], call, narrow)),
    ...(narrow ? [] : subscriptions.map((route) => ({ lines: delivery(places[route.from], places[route.to], route) }))),
  ];
  const whole = html("div", { class: "picture" },
    svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" }, drawn.map((part) => part.lines)),
    drawn.map((part) => part.label),
    Object.entries(places).map(([name, place]) =>
      box(name, state.services[name], place, subscriptions.filter((route) => route.from === name))));
  whole.style.height = `${height}px`;
  return whole;
}

/** The Services that callers call, with the Broker; and the Services that they call. */
function ordered(state) {
  const names = Object.keys(state.services);
  const front = [...names.filter((name) => state.services[name].public), ...names.filter((name) => isBroker(state, name))];
  return [front, names.filter((name) => !front.includes(name))];
}

// The Broker's own Service takes no calls of a function, and its triggers name the subscribers.
const isBroker = (state, name) => name === "broker-ingress" && Object.keys(state.triggers).length > 0;

/** The triggers whose subscriber is a Service of the picture. */
function routes(state) {
  const byAddress = Object.fromEntries(Object.entries(state.services).map(([name, service]) => [service.address, name]));
  const broker = Object.keys(state.services).find((name) => isBroker(state, name));
  return Object.entries(state.triggers)
    .map(([name, trigger]) => ({ ...trigger, name: name.split("/").pop(), from: broker, to: byAddress[origin(trigger.subscriber)] }))
    .filter((route) => route.from && route.to);
}

function origin(url) {
  try { return new URL(url).origin; } catch { return url; }
}

function sideBySide(state, width) {
  const [front, behind] = ordered(state);
  const size = Math.min(WIDEST, (width - WIDE.first - WIDE.wires) / 2);
  const rows = Math.max(front.length, behind.length);
  const total = rows * HEIGHT + (rows - 1) * WIDE.gap;
  const column = (names, x) => {
    const height = names.length * HEIGHT + (names.length - 1) * WIDE.gap;
    return names.map((name, i) => [name, { x, y: 4 + (total - height) / 2 + i * (HEIGHT + WIDE.gap), width: size }]);
  };
  return Object.fromEntries([...column(front, WIDE.first), ...column(behind, width - size - 2)]);
}

function stacked(state, width) {
  const [front, behind] = ordered(state);
  const called = front.slice(0, 1).concat(behind, front.slice(1));
  return Object.fromEntries(called.map((name, i) => {
    const x = behind.includes(name) ? NARROW.indent : 1;
    return [name, { x, y: NARROW.top + i * (HEIGHT + NARROW.gap), width: width - x - 1 }];
  }));
}

function box(name, service, place, subscriptions) {
  const current = service.revisions.filter((revision) => revision.instances.length);
  const instances = current.flatMap((revision) => revision.instances);
  const idle = service.idle ? `, ${service.idle} without traffic` : "";
  const waiting = service.waiting ? `, ${service.waiting} waiting` : "";
  const scale = atZero(service) ? "at zero" : `${service.ready} of ${service.desired} ready`;
  return placed(place.x, place.y, html(
    "div",
    { class: service.problem ? "box trouble" : "box", "data-service": name, "data-ready": service.ready },
    line(html("b", {}, name), current.some((revision) => revision.panicking) ? html("span", { class: "warn" }, "panic mode") : null),
    line(
      html("span", { class: "instances" }, ...instances.slice(0, 10).map((instance) =>
        html("span", { class: `instance ${instance.state}`, title: `${instance.name}: ${STATES[instance.state] ?? instance.state}` }))),
      html("span", {}, `${scale}${waiting}${idle}`)),
    ...(subscriptions.length ? listed(subscriptions) : load(service)),
  ), { width: place.width, height: HEIGHT });
}

const line = (...parts) => html("div", {}, ...parts);

function load(service) {
  const share = service.meant ? service.load / service.meant : 0;
  const bar = html("span", { class: share > 1 ? "load over" : "load" });
  bar.style.width = `${100 * Math.min(1, share)}%`;
  return [
    html("div", { class: "track" }, bar),
    html("div", { class: "muted" }, atZero(service) ? "the next request starts an instance"
      : `${number(service.load)} ${service.by_rate ? "req/s" : "in flight"}, meant for ${number(service.meant)}`),
    line(html("span", {}, `${number(service.rps)} req/s`), html("span", {}, `p50 ${number(service.p50_ms)} · p99 ${number(service.p99_ms)} ms`)),
  ];
}

/** The triggers, as many as the box holds. */
function listed(subscriptions) {
  const shown = subscriptions.length > LINES ? subscriptions.slice(0, LINES - 1) : subscriptions;
  const more = subscriptions.length - shown.length;
  return [...shown.map(subscription), ...(more ? [html("div", { class: "small" }, `and ${more} more`)] : [])];
}

function subscription(route) {
  const trouble = route.dead ? `, ${number(route.dead)} dead` : route.waiting ? `, ${number(route.waiting)} waiting` : "";
  return html("div", { class: route.dead ? "small bad" : "small" }, `${route.name} → ${route.to}${trouble}`);
}

/** A Trigger, drawn from the Broker to its subscriber. */
function delivery(from, to, route) {
  const busy = route.waiting ? "wire event busy" : "wire event";
  if (from.x === to.x) {
    const x = from.x + from.width / 2;
    return svg("g", {}, svg("path", { class: busy, d: `M ${x} ${from.y} V ${to.y + HEIGHT + 8}` }), up(x, to.y + HEIGHT));
  }
  const y = to.y + HEIGHT - 24;
  return svg("g", {}, svg("path", { class: busy, d: curve(from.x + from.width, from.y + HEIGHT / 2, to.x - 8, y) }), head(to.x, y));
}

function wire(from, to, call, narrow) {
  const path = narrow
    ? `M 12 ${from.y + HEIGHT} V ${to.y + HEIGHT / 2} H ${to.x - 8}`
    : curve(from.x + from.width, from.y + HEIGHT / 2, to.x - 8, to.y + HEIGHT / 2);
  // The label stands beside the wire, on the side away from the caller.
  const beside = to.y > from.y ? 12 : -32;
  const [x, y] = narrow ? [to.x + 4, to.y - 26] : [to.x - 100, to.y + HEIGHT / 2 + beside];
  const open = call.breaker > 1;
  return {
    lines: svg("g", {}, svg("path", { class: `wire${call.rps > 0 ? " busy" : ""}${open ? " open" : ""}`, d: path }), head(to.x, to.y + HEIGHT / 2)),
    label: placed(x, y, html("span", { class: "label" }, open ? "breaker open" : `${number(call.rps)} calls/s`), narrow ? {} : { width: 84 }),
  };
}

function callers(state, places, narrow) {
  return ordered(state)[0].filter((name) => !isBroker(state, name)).map((name) => {
    const { x, y } = places[name];
    const busy = state.services[name].rps > 0 ? "wire busy" : "wire";
    const text = html("span", { class: "label" }, "callers");
    return narrow
      ? { lines: svg("g", {}, svg("path", { class: busy, d: `M 60 24 V ${y - 8}` }), down(60, y)), label: placed(36, 0, text, {}) }
      : {
        lines: svg("g", {}, svg("path", { class: busy, d: `M ${WIDE.caller} ${y + HEIGHT / 2} H ${x - 8}` }), head(x, y + HEIGHT / 2)),
        label: placed(0, y + HEIGHT / 2 - 11, text, { width: WIDE.caller - 8 }),
      };
  });
}

const curve = (x1, y1, x2, y2) => `M ${x1} ${y1} C ${(x1 + x2) / 2} ${y1}, ${(x1 + x2) / 2} ${y2}, ${x2} ${y2}`;
const head = (x, y) => svg("path", { class: "head", d: `M ${x} ${y} l -9 -5 v 10 z` });
const up = (x, y) => svg("path", { class: "head", d: `M ${x} ${y} l -5 9 h 10 z` });
const down = (x, y) => svg("path", { class: "head", d: `M ${x} ${y} l -5 -9 h 10 z` });

/** Whether a Service has scaled to zero and no request waits for it. */
export const atZero = ({ ready, desired, waiting }) => !ready && !desired && !waiting;

export function described(state) {
  const parts = Object.entries(state.services).map(([name, service]) => (atZero(service) ? `${name} at zero`
    : `${name} with ${service.ready} of ${service.desired} instances ready at ${number(service.rps)} requests a second`));
  const calls = state.calls.map((call) => `${call.from} calls ${call.to}`);
  const events = routes(state).map((route) => `the trigger ${route.name} delivers events to ${route.to}`);
  return [...parts, ...calls, ...events].join("; ");
}
