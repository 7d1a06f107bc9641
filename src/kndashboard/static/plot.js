// Draws one chart: axes, lines, marks, and a crosshair. All positions are in CSS pixels of the given width.

import { html, number, placed, svg } from "./dom.js";

const HEIGHT = 150, LEFT = 42, TOP = 8, BOTTOM = 22;

/** Return a chart of `lines` ({values, row, dashed, stepped}) over `time` ({begin, step, length}). */
export function plot(lines, { time, width, marks }) {
  const right = width - 8, base = HEIGHT - BOTTOM;
  const most = ceiling(Math.max(0, ...lines.flatMap((line) => [line.stepped ? 2 : 0, ...line.values.filter((value) => value !== null)])));
  const x = (i) => LEFT + ((right - LEFT) * (i + 0.5)) / time.length;
  const y = (value) => base - ((base - TOP) * value) / most;
  const at = (moment) => x((moment - time.begin) / time.step - 0.5);
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, "aria-hidden": "true" },
    [0, 0.5, 1].map((share) => svg("path", { class: "grid-line", d: `M ${LEFT} ${y(share * most)} H ${right}` })),
    marks.map((mark) => svg("path", { class: "mark", d: `M ${at(mark.at)} ${TOP} V ${base}` }, svg("title", {}, mark.text))),
    lines.map((line) => svg("path", {
      class: `line row-${line.row}${line.dashed ? " dashed" : ""}`, d: traced(line.values, x, y, line.stepped),
    })),
    svg("path", { class: "cross", d: `M 0 ${TOP} V ${base}`, transform: "translate(-9 0)" }),
  );
  return html("div", { class: "plot", "aria-hidden": "true" }, drawing,
    [0, 0.5, 1].map((share) => placed(0, y(share * most) - 9, html("span", { class: "tick" }, number(share * most, 2)), { width: LEFT - 6 })),
    ticks(time, width).map((moment) => placed(at(moment) - 30, base + 3,
      html("span", { class: "tick below" }, clock(moment, moment % 60)), { width: 60 })));
}

/** Move the crosshair of a chart to a point, or away. */
export function point(chart, i, time) {
  const { width } = chart.querySelector("svg").viewBox.baseVal;
  const x = i === null ? -9 : LEFT + ((width - 8 - LEFT) * (i + 0.5)) / time.length;
  chart.querySelector(".cross").setAttribute("transform", `translate(${x} 0)`);
}

/** Return the number of the point below a position on a chart. */
export function nearest(chart, clientX, time) {
  const drawing = chart.querySelector("svg"), box = drawing.getBoundingClientRect();
  const { width } = drawing.viewBox.baseVal;
  const share = ((clientX - box.left) * (width / box.width) - LEFT) / (width - 8 - LEFT);
  return Math.max(0, Math.min(time.length - 1, Math.floor(share * time.length)));
}

export const clock = (moment, seconds) =>
  new Date(moment * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined });

function traced(values, x, y, stepped) {
  let pen = "";
  const half = (x(1) - x(0)) / 2;
  return values.map((value, i) => {
    if (value === null) return (pen = "");
    const start = pen || "M";
    pen = "L";
    if (stepped) return `${start}${(x(i) - half).toFixed(1)} ${y(value).toFixed(1)}H${(x(i) + half).toFixed(1)}`;
    // A point without neighbours is drawn as a dash, or it would be invisible.
    return `${start}${x(i).toFixed(1)} ${y(value).toFixed(1)}${start === "M" ? "h1" : ""}`;
  }).join("");
}

/** The next of 1, 2, 4, 6, 8, 10, 20, … above a value. Half of it is a whole number from 2 on. */
function ceiling(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((factor) => factor * power).find((round) => round >= value);
}

function ticks(time, width) {
  const total = time.step * time.length, room = Math.floor((width - LEFT) / 76);
  const gap = [10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600].find((seconds) => total / seconds <= room) ?? 43200;
  const zone = new Date(time.begin * 1000).getTimezoneOffset() * 60;
  const first = Math.ceil((time.begin - zone) / gap) * gap + zone;
  return Array.from({ length: Math.max(0, Math.ceil((time.begin + total - first) / gap)) }, (_, i) => first + i * gap)
    .filter((moment) => moment - time.begin > total * 0.03 && time.begin + total - moment > total * 0.03);
}
