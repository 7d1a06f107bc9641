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

/** Send the form's request when it is submitted; return a function that sets the pipeline's URL for the commands. */
export function listen(form, place) {
  let url = "";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    place.replaceChildren(html("p", { class: "empty" }, "waiting for the answer"));
    const asked = { user_id: form.elements.user_id.value, top_k: given(form.elements.top_k.value) };
    try {
      place.replaceChildren(...answered(await send(asked)), commands(url, asked));
    } catch {
      place.replaceChildren(html("p", { class: "bad" }, "The dashboard does not answer."));
    }
    button.disabled = false;
  });
  return (address) => { url = address; };
}

/** A number as a number, and any other text as it is: the pipeline explains what is wrong with it. */
const given = (text) => (text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text);

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
  const own = durations.total ?? answer.took_ms;
  const summary = `${answer.status} in ${number(own)} ms${degraded ? `, degraded: ${degraded.join(", ")}` : ""}`;
  const added = durations.total === undefined ? "measured by the dashboard, its own round trip included"
    : `the round trip through the ingress and this page's server added ${number(Math.max(0, answer.took_ms - own))} ms`;
  const items = answer.body?.recommendations;
  return [
    html("p", {}, html("span", { class: verdict, id: "verdict" }, summary), " ", html("small", { id: "round-trip" }, added)),
    items ? html("ol", { class: "items" }, ...items.map((item) => recommended(item, answer.titles)))
      : problem(answer.body),
    ...(Object.keys(durations).length ? [waterfall(durations, own)] : []),
    html("dl", {}, ...Object.entries(facts).flatMap(([name, text]) =>
      [html("dt", {}, FACTS[name] ?? name), html("dd", {}, text.replaceAll("_", " "))])),
  ];
}

/** A recommended item: title, id, score, and the reason if the answer gives one; `titles` are those of other items. */
export function recommended({ item_id: id, score, title, reason }, titles = {}) {
  const name = title || titles[id];
  const because = reason && `${reason.source}${reason.item_id ? `, because of ${titles[reason.item_id] || reason.item_id}` : ""}`;
  return html("li", {}, name ? html("b", {}, name) : null, name ? " " : null,
    html("small", {}, [id, score, because].filter((text) => text !== undefined).join(" · ")));
}

/** A problem document: its title and detail, each fault, and the whole document. */
export function problem(body) {
  const whole = html("pre", { tabindex: 0, role: "group", "aria-label": "the answer" }, typeof body === "string" ? body : JSON.stringify(body, null, 2));
  if (!body?.title) return whole;
  const faults = (body.errors ?? []).map((fault) => html("li", {}, Object.values(fault).join(": ")));
  return html("div", {}, html("p", {}, html("b", {}, body.title), body.detail ? `: ${body.detail}` : null),
    faults.length ? html("ul", {}, ...faults) : null, whole);
}

function commands(url, asked) {
  const json = JSON.stringify(asked);
  const texts = {
    curl: `curl -d '${json.replaceAll("'", "'\\''")}' ${url}`,
    Python: `import httpx\n\nprint(httpx.post(${JSON.stringify(url)}, json=${python(asked)}).json())`,
  };
  return html("div", { class: "grid" }, ...Object.entries(texts).map(([name, text]) => copied(name, text)));
}

const python = (asked) =>
  `{${Object.entries(asked).map(([key, value]) => `${JSON.stringify(key)}: ${JSON.stringify(value)}`).join(", ")}}`;

function copied(name, text) {
  const button = html("button", { type: "button", class: "plain" }, "copy");
  button.setAttribute("aria-label", `copy the request for ${name}`);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text).catch(() => {});
    button.textContent = "copied";
  });
  return html("div", { class: "command" }, html("h3", {}, name, " ", button), html("pre", { tabindex: 0, role: "group", "aria-label": `request for ${name}` }, text));
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
  const { total, ...phases } = durations;
  const rows = Object.entries(phases).filter(([, ms]) => ms >= 0.01);
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
