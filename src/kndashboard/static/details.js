// What is served: the model, the catalogue, the triggers with their dead letters, and the logs.

import { html, number, show } from "./dom.js";
import { problem } from "./request.js";

async function get(path) {
  const answer = await fetch(path);
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail ?? body.title);
  return body;
}

/** Show which pipeline this is, and its model. */
export async function about(which, place) {
  const { state_dir: folder, model, in_use: used } = await get("/_dashboard/about");
  const dataset = model.dataset ?? (model.place || "no data set");
  document.title = `${dataset} · ${folder} · Recommendation pipeline`;
  show(which, html("b", {}, dataset), " in ", html("code", {}, folder));
  if (!model.place && !used.length) return show(place, html("p", { class: "empty" }, "No Service names a model (MODEL_PATH)."));
  // The reader's table stays open when the age in the card changes.
  if (!place.firstElementChild?.matches("div") || place.dataset.version !== String(model.version)) {
    place.dataset.version = model.version;
    place.replaceChildren(html("div"), chosen(model));
  }
  show(place.firstElementChild, card(model, used));
}

/** The facts of the artefact; of an artefact that the dashboard cannot read, what the instances report. */
function card(model, used) {
  const loaded = used.map((each) =>
    `${each.name} ${each.version} in ${number(each.instances)} instance${each.instances === 1 ? "" : "s"}, ${age(each.age_s)} old`);
  const facts = {
    ...(model.name ? { model: `${model.name} ${model.version}` } : { "read from": model.place || "an unknown place" }),
    loaded: loaded.join("; ") || "in no instance",
    ...(model.name ? { data: `${model.dataset}: ${number(model.users)} users, ${number(model.items)} items, ${number(model.ties)} ties` } : {}),
    ...Object.fromEntries(Object.entries(model.metrics ?? {}).map(([name, value]) => [name.replaceAll("_", " "), number(value, 4)])),
  };
  return html("dl", {}, ...Object.entries(facts).flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)]));
}

function chosen(model) {
  if (!model.choice?.length) return html("div");
  const rows = model.choice.map((each) => [each.what, number(each.ndcg_10, 4), number(each.recall_20, 4)]);
  return html("details", {}, html("summary", {}, "How its parts were chosen, on held-out interactions"),
    table(["candidate", "NDCG@10", "Recall@20"], rows, "candidates", "words cards"));
}

function age(seconds) {
  const [size, unit] = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]].find(([each]) => seconds >= each) ?? [1, "second"];
  const count = Math.round(seconds / size);
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** Show the triggers and the dead letters, and return them for the picture. */
export async function triggers(place) {
  const found = await get("/_dashboard/events");
  const rows = Object.entries(found.triggers).map(([name, each]) =>
    [name.split("/").pop(), ...["delivered", "waiting", "retrying", "dead"].map((key) => number(each[key]))]);
  show(place, ...(rows.length ? [table(["trigger", "delivered", "waiting", "retrying", "dead"], rows, "triggers", "cards")] : []),
    ...(found.dead_letters.length ? [html("h3", {}, "Dead letters"), ...found.dead_letters.slice(0, 10).map((each) => letter(each, place))] : []));
  return found;
}

function letter(each, place) {
  const button = html("button", { type: "button", class: "plain" }, "deliver again");
  button.setAttribute("aria-label", `deliver ${each.event.id} again`);
  const line = html("p", { class: "letter" }, html("b", {}, each.event.id),
    ` of ${each.trigger}: ${each.failure.code ?? "no answer"} ${each.failure.reason} `, button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    const answer = await fetch("/_dashboard/redrive", {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ trigger: each.trigger, ids: [each.event.id], source: each.event.source }),
    });
    const { redriven, problem } = await answer.json();
    line.append(redriven ? " is being delivered" : ` ${problem ?? "is no dead letter any more"}`);
    await triggers(place);
  });
  return line;
}

/** Search the catalogue when the form is submitted, and show the chosen item in a second place. */
export function search(form, place, about) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const found = await get(`/_dashboard/items?q=${encodeURIComponent(form.elements.q.value)}`).catch((error) => ({ problem: error.message }));
    const rows = (found.items ?? []).map((item) => [link(item.item_id, about), item.title || "–", item.values.join(", ") || "–"]);
    about.replaceChildren();
    place.replaceChildren(html("p", {}, found.problem ?? `${number(found.total)} items${found.total > rows.length ? `, the first ${rows.length}` : ""}`),
      ...(rows.length ? [table(["item", "title", "attributes"], rows, "items", "words")] : []));
  });
}

/** A button that shows an item. */
function link(id, place) {
  const button = html("button", { type: "button", class: "plain" }, id);
  button.addEventListener("click", async () => {
    const answer = await fetch("/_dashboard/item", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ item_id: id }),
    }).then((got) => got.json()).catch(() => ({ problem: "The dashboard does not answer." }));
    place.replaceChildren(html("h3", {}, id), ...item(answer, place));
  });
  return button;
}

/** Title, attributes and availability of an item, and what resembles it, as an instance of rank_items knows them. */
function item({ status, body, ...failed }, place) {
  if (status !== 200) return [status ? problem(body) : html("p", { class: "bad" }, failed.error ?? failed.problem)];
  const { title, attributes, available } = body.item;
  const facts = { title: title || "–", available: available ? "yes" : "no: no user gets it",
    ...Object.fromEntries(Object.entries(attributes).map(([name, values]) => [name, values.join(", ")])) };
  return [
    html("dl", {}, ...Object.entries(facts).flatMap(([name, text]) => [html("dt", {}, name), html("dd", {}, text)])),
    html("h3", {}, "Similar items"),
    html("ol", { class: "similar" }, ...body.items.map((each) => html("li", {}, link(each.item_id, place), ` ${each.title ?? ""}`))),
  ];
}

/** Show the newest lines of the chosen log. */
export async function logs(select, place) {
  const found = await get(`/_dashboard/logs?name=${encodeURIComponent(select.value)}`);
  const names = found.logs.map((each) => each.name);
  const chosen = names.includes(select.value) ? select.value : (found.logs.find((each) => each.errors)?.name ?? names[0]);
  show(select, ...found.logs.map((each) => html("option", { value: each.name, selected: each.name === chosen },
    `${each.name}${each.errors ? `: ${number(each.errors)} errors` : ""}`)));
  select.onchange = () => logs(select, place);
  if (chosen && chosen !== found.name) return logs(select, place);
  show(place, found.lines.length ? html("pre", { tabindex: 0, role: "group", class: "log", "aria-label": `log of ${found.name}` },
    ...found.lines.map((line) => html("span", { class: `level-${line.level.toLowerCase() || "none"}` }, `${line.text}\n`)))
    : html("p", { class: "empty" }, "No lines."));
}

export function table(heads, rows, what, kind) {
  return html("div", { class: "scroll", role: "group", tabindex: 0, "aria-label": `Table of ${what}` },
    html("table", { class: kind ?? "" },
      html("thead", {}, html("tr", {}, ...heads.map((text) => html("th", { scope: "col" }, text)))),
      html("tbody", {}, ...rows.map(([first, ...others]) =>
        html("tr", {}, html("th", { scope: "row" }, first), ...others.map((text, i) => html("td", { "data-label": heads[i + 1] }, text)))))));
}
