// Fetches the state once a second while the page is visible, and shows it.

import { html, number, show, svg } from "./dom.js";
import { picture } from "./picture.js";
import { listen } from "./request.js";

const PERIOD_MS = 1000;
const HISTORY = 120;
const narrow = window.matchMedia("(max-width: 46rem)");
const part = (id) => document.getElementById(id);
const past = {};
const ready = {};
let latest = null;

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/_dashboard/state");
      const state = await answer.json();
      if (!answer.ok) throw new Error(state.detail ?? state.title);
      latest = state;
      pulse("live", "live");
      remember(state);
      draw(state);
    } catch (error) {
      pulse("gone", error instanceof TypeError ? "not running" : error.message);
    }
  }
  setTimeout(look, PERIOD_MS);
}

function pulse(kind, text) {
  part("pulse").className = `pulse ${kind}`;
  part("pulse").textContent = text;
}

function remember(state) {
  const news = [];
  for (const [name, service] of Object.entries(state.services)) {
    const now = service.revisions.reduce((total, revision) => total + revision.ready, 0);
    const desired = service.revisions.reduce((total, revision) => total + revision.desired, 0);
    (past[name] ??= []).push({ ready: now, desired, rps: service.rps });
    past[name].splice(0, past[name].length - HISTORY);
    if (ready[name] !== undefined && ready[name] !== now) news.push(`${name}: ${now} of ${desired} instances are ready`);
    ready[name] = now;
  }
  // Screen readers read this text aloud, so it contains only changes.
  if (news.length) part("news").textContent = news.join(", ");
}

function draw(state) {
  show(part("picture"), picture(state, narrow.matches));
  show(part("history"), ...Object.keys(state.services).map((name) => course(name, past[name])));
  show(part("revisions"), ...Object.values(state.services).flatMap((service) => service.revisions.map(row)));
  show(part("batches"), ...batches(state.batches));
  show(part("events"), events(state.events));
}

function course(name, points) {
  const last = points.at(-1);
  const most = Math.max(5, ...points.map((point) => Math.max(point.ready, point.desired)));
  const fastest = Math.max(1, ...points.map((point) => point.rps));
  const x = (i) => HISTORY - points.length + i;
  const steps = (key) => points.map((point, i) => `${i ? "" : "M"}${x(i)} ${60 - (56 * point[key]) / most} h1`).join(" L");
  const rates = points.map((point, i) => `${x(i) + 0.5},${60 - (56 * point.rps) / fastest}`).join(" ");
  return html(
    "figure",
    { "data-course": name },
    html("figcaption", {}, html("b", {}, name), html("span", {},
      html("span", { class: "count" }, `${last.ready} of ${last.desired} instances`), ", ",
      html("span", { class: "rate" }, `${number(last.rps)} req/s`))),
    svg(
      "svg",
      { viewBox: `0 0 ${HISTORY} 62`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { class: "ready-area", d: `${steps("ready")} V60 H${x(0)} Z` }),
      svg("path", { class: "desired-line", d: steps("desired") }),
      svg("polyline", { class: "rate-line", points: rates }),
    ),
  );
}

function row(revision) {
  const unit = revision.metric === "rps" ? " req/s" : "";
  const state = revision.failure
    ? html("span", { class: "bad" }, revision.failure)
    : revision.panicking
      ? html("span", { class: "warn" }, "panic mode")
      : html("span", { class: "good" }, revision.ready ? "ready" : "starting");
  return html(
    "tr",
    { "data-revision": revision.name },
    html("th", { scope: "row" }, revision.name, ...revision.tags.map((tag) => ` #${tag}`)),
    html("td", {}, `${revision.traffic_percent} %`),
    html("td", {}, `${revision.ready} of ${revision.desired}`),
    html("td", {}, number(revision.concurrency)),
    html("td", {}, number(revision.target) + unit),
    html("td", {}, number(revision.rps)),
    html("td", { class: "words" }, state),
  );
}

function batches({ sizes, cuts }) {
  const total = sizes.reduce((sum, size) => sum + size.count, 0);
  if (!total) return [html("p", { class: "empty" }, "None. Concurrent requests are ranked together; send some.")];
  const used = sizes.slice(0, sizes.findLastIndex((size) => size.count > 0) + 1);
  const most = Math.max(...used.map((size) => size.count));
  const reasons = Object.entries(cuts).filter(([, count]) => count > 0);
  return [
    html("table", { class: "bars" },
      html("caption", {}, `${number(total)} batches, by size; cut because `
        + reasons.map(([reason, count]) => `${reason.replace("_", " ")}: ${number(count)}`).join(", ")),
      html("tbody", {}, ...used.map((size, i) => bar(span(used[i - 1]?.up_to ?? 0, size.up_to), size.count, most)))),
  ];
}

const span = (above, upTo) => (upTo === null ? `> ${above}` : upTo === above + 1 ? `${upTo}` : `${above + 1}–${upTo}`);

function bar(label, count, most) {
  const drawn = html("span", { class: "bar", "aria-hidden": "true" });
  drawn.style.width = `${(100 * count) / most}%`;
  return html("tr", {}, html("th", { scope: "row" }, label), html("td", {}, number(count)), html("td", {}, drawn));
}

function events({ rates, totals }) {
  const meanings = { accepted: "counted", repeated: "seen before", rejected: "malformed" };
  if (!Object.keys(totals).length) return html("p", { class: "empty" }, "No function here takes events.");
  return html("table", {},
    html("thead", {}, html("tr", {}, ...["outcome", "a second", "since start"].map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...Object.entries(totals).map(([outcome, total]) =>
      html("tr", {}, html("th", { scope: "row" }, meanings[outcome] ?? outcome),
        html("td", {}, number(rates[outcome])), html("td", {}, number(total))))));
}

narrow.addEventListener("change", () => latest && draw(latest));
listen(document.querySelector("form"), part("answer"));
look();
