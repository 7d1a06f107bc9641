// Fetches the state once a second while the page is visible, and shows it.

import { changes } from "./changes.js";
import { Charts } from "./charts.js";
import { about, logs, search, triggers } from "./details.js";
import { html, number, show } from "./dom.js";
import { atZero, described, picture } from "./picture.js";
import { listen } from "./request.js";
import { lookUp } from "./user.js";

const PERIOD_MS = 1000;
const SLOW_MS = 5000;
const part = (id) => document.getElementById(id);
const ready = {};
let latest = null, events = null;

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/_dashboard/state");
      const state = await answer.json();
      if (!answer.ok) throw new Error(state.detail ?? state.title);
      latest = state;
      pulse("live", "live");
      announce(state);
      draw(state);
      tryAt(state.url);
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

/** Call a function again and again while the page is visible. Its errors are shown by the pulse of `look`. */
async function repeat(task, period) {
  if (!document.hidden) await task().catch(() => {});
  setTimeout(repeat, period(), task, period);
}

function announce(state) {
  const news = [];
  for (const [name, service] of Object.entries(state.services)) {
    if (ready[name] !== undefined && ready[name] !== service.ready) {
      news.push(atZero(service) ? `${name} has scaled to zero` : `${name}: ${service.ready} of ${service.desired} instances are ready`);
    }
    ready[name] = service.ready;
  }
  // Screen readers read this text aloud, so it contains only changes.
  if (news.length) part("news").textContent = news.join(", ");
}

function draw(state) {
  const drawn = { ...state, triggers: events?.triggers ?? {} };
  show(part("picture"), html("p", { class: "hidden" }, described(drawn)), picture(drawn, part("picture").clientWidth));
  show(part("revisions"), ...Object.values(state.services).flatMap((service) => service.revisions.map(row)));
  show(part("batches"), ...batches(state.batches));
  show(part("events"), interactions(state.events));
}

function readiness({ ready, desired, waiting, cold_start_s }) {
  const cold = cold_start_s === null ? "" : `, last cold start ${number(cold_start_s)} s`;
  if (waiting) return `${waiting} waiting for an instance`;
  return (ready ? "ready" : desired ? "starting" : "at zero") + cold;
}

function row(revision) {
  const unit = revision.metric === "rps" ? " req/s" : "";
  const state = revision.failure
    ? html("span", { class: "bad" }, revision.failure)
    : revision.panicking
      ? html("span", { class: "warn" }, "panic mode")
      : html("span", { class: "good" }, readiness(revision));
  return html(
    "tr",
    { "data-revision": revision.name },
    html("th", { scope: "row" }, revision.name, ...revision.tags.map((tag) => ` #${tag}`)),
    html("td", { "data-label": "traffic" }, `${revision.traffic_percent} %`),
    html("td", { "data-label": "instances" }, `${revision.ready} of ${revision.desired}`),
    html("td", { "data-label": "in flight" }, number(revision.concurrency)),
    html("td", { "data-label": "target each" }, number(revision.target) + unit),
    html("td", { "data-label": "requests/s" }, number(revision.rps)),
    html("td", { "data-label": "state", class: "words" }, state),
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

function interactions({ rates, totals }) {
  const meanings = { accepted: "counted", repeated: "seen before", rejected: "malformed" };
  if (!Object.keys(totals).length) return html("p", { class: "empty" }, "No function here takes events.");
  return html("table", {},
    html("thead", {}, html("tr", {}, ...["outcome", "a second", "since start"].map((text) => html("th", { scope: "col" }, text)))),
    html("tbody", {}, ...Object.entries(totals).map(([outcome, total]) =>
      html("tr", {}, html("th", { scope: "row" }, meanings[outcome] ?? outcome),
        html("td", {}, number(rates[outcome])), html("td", {}, number(total))))));
}

new ResizeObserver(() => latest && draw(latest)).observe(part("picture"));
const tryAt = listen(part("request"), part("answer"));
const charts = new Charts({
  place: part("charts"), marks: part("marks"), slider: part("slider"), legend: part("services"), minutes: part("minutes"),
});
look();
repeat(() => charts.refresh(), () => charts.period * 1000);
repeat(async () => { events = await triggers(part("triggers")); }, () => SLOW_MS);
repeat(() => about(part("which"), part("model")), () => 2 * SLOW_MS);
repeat(() => changes(part("changes")), () => 2 * SLOW_MS);
repeat(() => logs(part("log"), part("lines")), () => SLOW_MS);
search(part("search"), part("items"), part("item"));
lookUp(part("who"), part("user"));
