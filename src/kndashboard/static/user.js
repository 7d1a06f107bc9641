// What the pipeline knows of a user, what it recommends, and what one item more in the history would change.

import { html, number, show } from "./dom.js";
import { problem, recommended } from "./request.js";

const SHOWN = 20;
const NAMES = { avg_session_duration: "mean session, s" };

/** Look up the form's user when it is submitted. */
export function lookUp(form, place) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    show(place, html("p", { class: "empty" }, "waiting for the answer"));
    const asked = { user_id: form.elements.user_id.value, added: form.elements.added.value.trim() };
    try {
      const answer = await fetch("/_dashboard/user", {
        method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked),
      });
      show(place, ...drawn(await answer.json()));
    } catch {
      show(place, html("p", { class: "bad" }, "The dashboard does not answer."));
    }
  });
}

function drawn(found) {
  if (!found.known) return [html("p", { class: "bad" }, found.problem ?? found.detail ?? found.title)];
  const before = (found.recommended.body?.recommendations ?? []).map((item) => item.item_id);
  return [
    answered(found.known, (body) => [features(body), history(body, found.titles)]),
    html("div", { class: "grid" },
      html("div", {}, html("h3", {}, "Recommended"), answered(found.recommended, (body) => list(body.recommendations, found.titles))),
      found.changed ? html("div", {}, html("h3", {}, "With ", name(found.added, found.titles), " added; nothing is stored"),
        answered(found.changed, (body) => list(body.items, found.titles, before))) : null),
  ];
}

function answered(answer, drawing) {
  if (answer.error) return html("p", { class: "bad" }, answer.error);
  return answer.status === 200 ? html("div", {}, drawing(answer.body)) : problem(answer.body);
}

function features({ features: values, cold_start: unknown, as_of: newest }) {
  const facts = {
    known: unknown ? "no: unknown users get popular items" : "yes",
    "newest interaction": newest ? moment(newest) : "none",
    ...Object.fromEntries(Object.entries(values).map(([key, value]) =>
      [NAMES[key] ?? key.replaceAll("_", " "), typeof value === "number" ? number(value, 3) : value])),
  };
  return html("dl", {}, ...Object.entries(facts).flatMap(([key, text]) => [html("dt", {}, key), html("dd", {}, text)]));
}

function history({ history: ids, times = [] }, titles) {
  if (!ids.length) return html("p", { class: "empty" }, "The history is empty.");
  const more = ids.length > SHOWN ? `, the newest ${SHOWN} of ${number(ids.length)}` : "";
  return html("details", {}, html("summary", {}, `History, newest first${more}`),
    html("ol", { class: "items" }, ...ids.slice(0, SHOWN).map((id, i) =>
      html("li", {}, name(id, titles), times[i] ? html("small", {}, ` ${moment(times[i])}`) : null))));
}

function list(items, titles, before) {
  return html("ol", {}, ...items.map((item) => {
    const line = recommended(item, titles);
    if (before && !before.includes(item.item_id)) line.append(html("span", { class: "good" }, " new"));
    return line;
  }));
}

const moment = (text) => new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
const name = (id, titles) => html("span", {}, titles[id] ? `${titles[id]} ` : null, html("small", {}, id));
