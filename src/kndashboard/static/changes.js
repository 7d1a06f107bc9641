// What is being tried on users: experiments, the shadow, and rollouts. A part without content has no section.

import { table } from "./details.js";
import { html, number, show } from "./dom.js";

/** Fetch the experiments, the shadow and the rollouts, and show those that exist. */
export async function changes(place) {
  const answer = await fetch("/_dashboard/changes");
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail ?? found.title);
  const { running, ended } = found.rollouts;
  const open = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.key));
  const trials = [...(found.problem ? [html("p", { class: "bad" }, found.problem)] : []), ...found.experiments.map((each) => experiment(each, open))];
  show(place,
    ...section("Experiments", trials),
    ...section("Shadow", found.shadow ? [shadow(found.shadow)] : []),
    ...section("Rollouts", [...running.map(underWay), ...ended.map((each) => report(each, open))]));
}

function section(title, content) {
  const id = `${title.toLowerCase()}-title`;
  return content.length ? [html("section", { "aria-labelledby": id }, html("h2", { id }, title), ...content)] : [];
}

function folded(key, open, summary, ...content) {
  return html("details", { "data-key": key, open: open.has(key) }, html("summary", {}, summary), ...content);
}

const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${number(100 * share, digits)} %`);
const signed = (share) => `${share > 0 ? "+" : share < 0 ? "−" : ""}${percent(Math.abs(share))}`;
const ms = (seconds) => (seconds === null ? "–" : `${number(1000 * seconds)} ms`);
const when = (seconds) => new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });

function experiment(each, open) {
  const { figures } = each;
  const about = `${percent(each.share)} of the users of the layer ${each.layer}; ${number(each.users)} users planned`
    + (each.started_us ? `; started ${when(each.started_us / 1e6)}` : "");
  const content = [
    html("p", {}, about),
    table(["arm", "share", "users", "actions per list", "difference", "lists", "failed", "p99", "state"],
      each.arms.map((arm) => row(arm, each)), `the arms of ${each.name}`, "cards arms"),
    ...doubts(figures),
    html("p", { class: "muted" }, figures
      ? `Figures of ${when(figures.at_us / 1e6)}; ${number(figures.waiting)} users are still followed and do not count yet. Each difference is relative to ${each.arms[0].name}, and its interval is valid at every look. `
      : "No figures yet. ", ...(each.running ? ["Update them with ", html("code", {}, "./run.sh experiments report"), "."] : [])),
  ];
  return each.running ? html("div", { "data-experiment": each.name }, html("h3", {}, each.name), ...content)
    : folded(each.name, open, `${each.name}, ended`, ...content);
}

function row(arm, { arms, running }) {
  const { figures, settings, calls } = arm;
  const shown = { revision: (value) => value, diversity: (value) => `diversity ${number(value, 2)}`, exploration: (value) => `exploration ${percent(value)}` };
  const differs = Object.entries(settings).map(([name, value]) => shown[name](value));
  return [
    html("span", {}, arm.name, " ", html("small", {}, differs.join(", ") || "the default")),
    percent(arm.share), number(figures?.users), number(figures?.mean, 4), difference(figures, widest(arms)),
    number(figures?.lists), percent(figures?.failed, 2), ms(figures?.p99_s ?? null), state(arm, calls, running),
  ];
}

function state({ stopped, figures }, calls, running) {
  if (stopped) return html("span", { class: "warn" }, "stopped: gets the default");
  if (!running) return figures?.warning || "ended";
  if (figures?.warning) return html("span", { class: "bad" }, `must stop: ${figures.warning}`);
  return calls?.failed ? html("span", { class: "warn" }, `${number(calls.failed)} of its own calls failed`) : "runs";
}

function doubts(figures) {
  return figures && !figures.sound ? [html("p", { class: "bad" }, "Users are not in the arms as declared. Do not trust the differences.")] : [];
}

const widest = (arms) => Math.max(0.01, ...arms.flatMap(({ figures }) => (figures?.change ?? null) === null ? [] : [Math.abs(figures.low), Math.abs(figures.high)]));

/** The interval as text, with a bar around the zero of the control. */
function difference(figures, most) {
  if ((figures?.change ?? null) === null) return figures?.verdict || "–";
  const piece = html("span", { class: `piece ${figures.verdict}` });
  const at = (share) => 50 + (50 * share) / most;
  piece.style.left = `${at(figures.low)}%`;
  piece.style.width = `${at(figures.high) - at(figures.low)}%`;
  const tone = { better: "good", worse: "bad" }[figures.verdict] ?? "";
  return html("span", { class: "difference" },
    html("span", {}, html("b", { class: tone }, figures.verdict), ` ${signed(figures.change)} `,
      html("span", { class: "whole" }, `[${signed(figures.low)}, ${signed(figures.high)}]`)),
    html("span", { class: "interval", "aria-hidden": "true" }, piece));
}

function shadow({ revision, share, copies, overlap, order, latency_s: latency }) {
  const facts = {
    revision, "share of the calls": percent(Number(share)),
    copies: ["compared", "failed", "dropped"].map((outcome) => `${number(copies[outcome])} ${outcome}`).join(", "),
    "overlap of the lists": percent(overlap), "pairs in the same order": percent(order),
    "mean latency": `${ms(latency.shadow)}, serving ${ms(latency.serving)}`,
  };
  return html("dl", { id: "shadow" }, ...Object.entries(facts).flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)]));
}

function underWay({ service, current, candidate, steps: planned, share, since, seen, alive }) {
  const left = planned.filter((each) => each > share);
  const now = alive ? `${share} % since ${when(since)}${left.length ? `, then ${left.join(", ")} %` : ""}`
    : `was killed at ${share} %; the next rollout of ${service} restores it`;
  return html("div", { "data-rollout": service }, html("h3", {}, `${service}: `, html("span", { class: alive ? "good" : "bad" }, now)),
    html("p", {}, `from ${current} to ${candidate}`), ...steps(seen, candidate));
}

function report({ service, current, candidate, promoted, reasons, seen, seconds, time }, open) {
  const verdict = html("span", { class: promoted ? "good" : "bad" }, promoted ? "promoted" : "rolled back");
  const key = `${service} ${time}`;
  return folded(key, open, html("span", {}, `${service}: `, verdict, `, ${when(Date.parse(time) / 1000)}`),
    html("p", {}, candidate ? `from ${current} to ${candidate} in ${number(seconds, 0)} s` : `from ${current}; no candidate was made`),
    ...(reasons.length ? [html("ul", {}, ...reasons.map((each) => html("li", {}, each)))] : []), ...steps(seen, candidate));
}

function steps(seen, candidate) {
  if (!seen.length) return [];
  const heads = ["traffic", "requests", "failed", "p50", "p99", "present p50", "present p99", "live", "live failed", "overlap", "correlation"];
  const time = (value) => `${number(value)} ms`;
  return [table(heads, seen.map(({ share, candidate: own, current, live, overlap, correlation }) => [
    `${share} %`, number(own.requests), number(own.faults), time(own.p50_ms), time(own.p99_ms), time(current.p50_ms), time(current.p99_ms),
    number(live.requests), number(live.faults), number(overlap, 3), number(correlation, 3),
  ]), `the steps to ${candidate}`, "cards")];
}
