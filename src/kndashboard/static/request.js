// The form, and the receipt of its answer as a waterfall.

import { html, number, show } from "./dom.js";

// Phases of the receipt: their labels, and the colours of their owners.
const PHASES = {
  store: ["feature store", "features"],
  features: ["extract_features", "features"],
  "features-network": ["network, extract_features", "wire"],
  "features-failed": ["extract_features, failed", "features"],
  fill: ["waiting for the batch to fill", "ranking"],
  slot: ["waiting behind another batch", "ranking"],
  model: ["model", "ranking"],
  ranking: ["rank_items", "ranking"],
  "ranking-network": ["network, rank_items", "wire"],
  "ranking-failed": ["rank_items, failed", "ranking"],
  app: ["recommend", "own"],
};
const FACTS = {
  batch: "batch size", cut: "batch cut because", rev: "recommend", "features-rev": "extract_features", "ranking-rev": "rank_items",
};

export function listen(form, place) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const asked = { user_id: form.elements.user_id.value, top_k: Number(form.elements.top_k.value) };
      show(place, ...answered(await send(asked)));
    } catch {
      show(place, html("p", { class: "bad" }, "The dashboard does not answer."));
    }
    button.disabled = false;
  });
}

async function send(asked) {
  const answer = await fetch("/_dashboard/request", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
  });
  const body = await answer.json();
  return answer.ok ? body : { error: body.detail ?? body.title };
}

function answered(answer) {
  if (answer.error) return [html("p", { class: "bad" }, answer.error)];
  const { durations, facts } = receipt(answer.receipt);
  const degraded = answer.body?.degraded;
  const verdict = answer.status === 200 ? (degraded ? "warn" : "good") : "bad";
  const summary = `${answer.status} in ${number(answer.took_ms)} ms${degraded ? `, degraded: ${degraded.join(", ")}` : ""}`;
  const items = answer.body?.recommendations;
  return [
    html("p", { class: verdict, id: "verdict" }, summary),
    items
      ? html("ol", { class: "items" }, ...items.map((item) => html("li", {}, `${item.item_id} · ${item.score}`)))
      : html("pre", { tabindex: 0 }, JSON.stringify(answer.body, null, 2)),
    waterfall(durations, answer.took_ms),
    html("dl", {}, ...Object.entries(facts).flatMap(([name, text]) =>
      [html("dt", {}, FACTS[name] ?? name), html("dd", {}, text.replaceAll("_", " "))])),
  ];
}

/** Durations in ms and facts of a Server-Timing value. */
function receipt(value) {
  const durations = {}, facts = {};
  for (const [, name, key, quoted, plain] of value.matchAll(/([\w.-]+);(dur|desc)=(?:"([^"]*)"|([^,;]*))/g)) {
    if (key === "dur") durations[name] = Number(quoted ?? plain);
    else facts[name] = quoted ?? plain;
  }
  return { durations, facts };
}

function waterfall(durations, tookMs) {
  const { total = 0, ...phases } = durations;
  const rows = Object.entries(phases).filter(([, ms]) => ms >= 0.01);
  rows.push(["ingress and dashboard", Math.max(0, tookMs - total)]);
  let start = 0;
  const drawn = rows.map(([name, ms]) => {
    const [label, owner] = PHASES[name] ?? [name, "wire"];
    const piece = html("span", { class: `bar ${owner}`, "aria-hidden": "true" });
    piece.style.left = `${(100 * start) / tookMs}%`;
    piece.style.width = `${(100 * ms) / tookMs}%`;
    start += ms;
    return html("li", {}, html("span", {}, label), html("span", {}, `${number(ms, 2)} ms`), html("span", {}, piece));
  });
  return html("div", {}, html("h3", {}, "Where the time went"), html("ol", { class: "fall", id: "waterfall" }, ...drawn));
}
