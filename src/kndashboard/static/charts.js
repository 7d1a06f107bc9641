// The remembered time as charts with one crosshair. A colour is a Service; a dashed line is a chart's second figure.

import { html, number, show } from "./dom.js";
import { clock, nearest, plot, point } from "./plot.js";

const CHARTS = [
  { title: "Requests", unit: "a second", first: ["rate", "requests a second"] },
  { title: "Latency", unit: "ms", first: ["p99", "p99"], second: ["p50", "p50"] },
  { title: "Errors and degraded answers", unit: "a second", first: ["errors", "errors"], second: ["degraded", "degraded"] },
  { title: "Instances", unit: "", first: ["ready", "ready"], second: ["desired", "desired"], stepped: true },
  { title: "Requests in flight", unit: "", first: ["in_flight", "in flight"], second: ["target", "target"] },
  { title: "Batch size", unit: "", first: ["batch", "mean"], second: ["batch_p99", "p99"] },
  { title: "CPU", unit: "cores", first: ["cpu", "cores"] },
  { title: "Memory", unit: "MB", first: ["memory", "MB"] },
];
const ROWS = 15, FEWEST = 12;

/** Show the charts in a place, and keep them current. */
export class Charts {
  #place; #marks; #slider; #legend; #minutes; #all = null; #data = null; #at = null; #hidden = new Set(["broker-ingress"]); #asked = 0;

  constructor({ place, marks, slider, legend, minutes }) {
    this.#place = place; this.#marks = marks; this.#slider = slider; this.#legend = legend; this.#minutes = minutes;
    minutes.addEventListener("change", () => { this.#all = this.#data = null; this.#follow(null); this.refresh(); });
    slider.addEventListener("input", () => this.#follow(Number(slider.value)));
    slider.addEventListener("blur", () => this.#follow(null));
    new ResizeObserver(() => this.#draw()).observe(place);
    place.replaceChildren(...CHARTS.map((chart) => this.#figure(chart)));
  }

  /** Fetch what is new, and draw it. */
  async refresh() {
    const asked = ++this.#asked, known = this.#all;
    const after = known ? `&after=${known.begin + (known.length - 1) * known.step}` : "";
    const answer = await fetch(`/_dashboard/history?minutes=${this.#minutes.value}${after}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    const fresh = await answer.json();
    if (asked !== this.#asked) return;
    this.#all = known ? joined(known, fresh) : fresh;
    this.#data = filled(this.#all);
    this.#draw();
  }

  /** Seconds until a new point may be there. */
  get period() { return this.#data ? Math.min(10, this.#data.step / 2) : 1; }

  #figure(chart) {
    const figure = html("figure", { "data-chart": chart.first[0] },
      html("figcaption", {}, html("b", {}, chart.title), html("small", {}, shape(chart)), html("span", { class: "values" })),
      html("div", { class: "canvas" }),
      html("details", {}, html("summary", {}, `${chart.title} as a table`), html("div", { class: "scroll", tabindex: 0 })));
    const canvas = figure.querySelector(".canvas");
    canvas.addEventListener("pointermove", (event) => this.#data && this.#follow(nearest(canvas.firstChild, event.clientX, this.#data)));
    canvas.addEventListener("pointerleave", () => this.#follow(null));
    figure.querySelector("details").addEventListener("toggle", () => this.#data && this.#table(figure, chart));
    return figure;
  }

  #draw() {
    if (!this.#data) return;
    const data = this.#data, names = Object.keys(data.services).sort();
    show(this.#legend, ...names.map((name, row) => this.#switch(name, row)));
    this.#slider.max = data.length - 1;
    for (const [i, chart] of CHARTS.entries()) {
      const figure = this.#place.children[i], canvas = figure.querySelector(".canvas");
      const lines = this.#lines(chart, names);
      canvas.replaceChildren(plot(lines, { time: data, width: Math.max(240, canvas.clientWidth), marks: data.marks }));
      figure.classList.toggle("vacant", lines.every((line) => line.values.every((value) => value === null)));
      if (figure.querySelector("details").open) this.#table(figure, chart);
    }
    const seconds = data.length * data.step <= 3600;
    show(this.#marks, ...data.marks.slice(-8).reverse().map((mark) =>
      html("li", {}, html("time", {}, clock(mark.at, seconds)), ` ${mark.text}`)));
    this.#values();
  }

  #switch(name, row) {
    const box = html("input", { type: "checkbox", checked: !this.#hidden.has(name) });
    box.addEventListener("change", () => {
      this.#hidden[box.checked ? "delete" : "add"](name);
      this.#draw();
    });
    return html("label", {}, box, html("span", { class: `key row-${row % 6}` }), name);
  }

  #lines(chart, names) {
    const lines = [];
    for (const [row, name] of names.entries()) {
      if (this.#hidden.has(name)) continue;
      for (const [figure, dashed] of [[chart.second, true], [chart.first, false]]) {
        const values = figure && this.#data.services[name][figure[0]];
        if (values) lines.push({ name, what: figure[1], values, row: row % 6, dashed, stepped: chart.stepped });
      }
    }
    return lines;
  }

  #follow(i) {
    this.#at = i;
    if (!this.#data) return;
    this.#values();
  }

  #values() {
    const data = this.#data, names = Object.keys(data.services).sort();
    const shown = this.#at ?? last(data);
    const moment = clock(data.begin + shown * data.step, true);
    this.#slider.value = shown;
    this.#slider.setAttribute("aria-valuetext", moment);
    document.getElementById("moment").textContent = this.#at === null ? "now" : moment;
    for (const [i, chart] of CHARTS.entries()) {
      const figure = this.#place.children[i], lines = this.#lines(chart, names).reverse();
      point(figure.querySelector(".plot"), this.#at, data);
      show(figure.querySelector(".values"), ...names.map((name, row) => {
        const own = lines.filter((line) => line.name === name).sort((a, b) => a.dashed - b.dashed);
        return own.length ? html("span", {}, html("span", { class: `key row-${row % 6}` }), html("span", { class: "hidden" }, `${name} `),
          own.map((line) => number(line.values[shown], 2)).join(" / ")) : null;
      }).filter(Boolean));
    }
  }

  #table(figure, chart) {
    const data = this.#data, each = Math.ceil(data.length / ROWS);
    const lines = this.#lines(chart, Object.keys(data.services).sort()).sort((a, b) => a.name.localeCompare(b.name) || a.dashed - b.dashed);
    const rows = Array.from({ length: Math.ceil(data.length / each) }, (_, i) => i * each);
    show(figure.querySelector(".scroll"), html("table", { class: "cards" },
      html("caption", {}, `${chart.title}${chart.unit ? `, ${chart.unit}` : ""}: highest value from each time on`),
      html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "from"),
        ...lines.map((line) => html("th", { scope: "col" }, `${line.name}, ${line.what}`)))),
      html("tbody", {}, ...rows.map((i) => html("tr", {}, html("th", { scope: "row" }, clock(data.begin + i * data.step, data.step < 60)),
        ...lines.map((line) => html("td", { "data-label": `${line.name}, ${line.what}` }, number(highest(line.values.slice(i, i + each)), 2))))))));
  }
}

const shape = (chart) => [chart.unit, chart.second && `${chart.first[1]}, dashed: ${chart.second[1]}`].filter(Boolean).join("; ");

function highest(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? Math.max(...known) : null;
}

/** The last point with data: the newest slot may still be empty. */
function last(data) {
  const any = Object.values(data.services).map((figures) => figures.ready ?? []);
  for (let i = data.length - 1; i > 0; i--) if (any.some((values) => values[i] !== null && values[i] !== undefined)) return i;
  return data.length - 1;
}

/** The range from its first figure on, for a pipeline that is younger; at least a minute. */
function filled(range) {
  const lines = Object.values(range.services).flatMap((figures) => Object.values(figures));
  const first = Math.min(...lines.map((values) => values.findIndex((value) => value !== null)).filter((i) => i >= 0));
  const left = Math.max(0, Math.min(first - 1, range.length - Math.max(FEWEST, 60 / range.step)));
  const services = Object.fromEntries(Object.entries(range.services).map(([name, figures]) =>
    [name, Object.fromEntries(Object.entries(figures).map(([figure, values]) => [figure, values.slice(left)]))]));
  const begin = range.begin + left * range.step;
  return { ...range, begin, length: range.length - left, services, marks: range.marks.filter((mark) => mark.at >= begin) };
}

/** The known points with the fresh ones behind them, moved to the fresh range. */
function joined(known, fresh) {
  const begin = fresh.begin + (fresh.points - fresh.length) * fresh.step;
  const moved = Math.round((begin - known.begin) / known.step);
  const values = (name, figure) => {
    const old = known.services[name]?.[figure] ?? Array(known.length).fill(null);
    const kept = [...old.slice(moved), ...Array(fresh.length).fill(null)].slice(0, fresh.length - fresh.points);
    return [...kept, ...(fresh.services[name]?.[figure] ?? Array(fresh.points).fill(null))];
  };
  const names = new Set([...Object.keys(known.services), ...Object.keys(fresh.services)]);
  const services = Object.fromEntries([...names].map((name) => {
    const figures = new Set([...Object.keys(known.services[name] ?? {}), ...Object.keys(fresh.services[name] ?? {})]);
    return [name, Object.fromEntries([...figures].map((figure) => [figure, values(name, figure)]))];
  }));
  return { ...fresh, begin, services };
}
