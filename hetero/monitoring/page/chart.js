// A line chart in plain SVG: as wide as its place, with a crosshair that reads the values under the pointer.

import { html, svg } from "./dom.js";

const HEIGHT = 210;
const MARGIN = { left: 52, right: 10, top: 10, bottom: 24 };
const HIGHEST_ZOOM = 6; // how far above the middle of the values a first peak may stretch the axis

export class LineChart {
  /** Draws into `place`. `format` says how a value reads; the values of all lines share one axis. */
  constructor(place, { label, format, fromZero = false }) {
    this.format = format;
    this.fromZero = fromZero;
    this.picture = svg("svg", { class: "chart", role: "img", "aria-label": label, height: HEIGHT });
    this.readout = html("div", { class: "readout", hidden: true });
    this.place = place;
    place.classList.add("chart-place");
    place.append(this.picture, this.readout);
    this.lines = [];
    new ResizeObserver(() => this.#draw()).observe(place);
    this.picture.addEventListener("pointermove", (event) => this.#point(event));
    this.picture.addEventListener("pointerleave", () => this.#leave());
  }

  /** `lines`: [{name, kind, steps, values}], `kind` a class that colours the line. Null values are gaps. */
  show(lines) {
    this.lines = lines.filter((line) => line.steps.length);
    this.#draw();
  }

  #draw() {
    const width = this.place.clientWidth;
    if (!width) return;
    this.picture.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.picture.setAttribute("width", String(width));
    if (!this.lines.length) {
      this.picture.replaceChildren(svg("text", { class: "tick", x: 0, y: HEIGHT / 2 }, "no step yet"));
      return;
    }
    this.#scale(width);
    this.cross = svg("line", { class: "cross", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    this.picture.replaceChildren(...this.#grid(width), ...this.lines.map((line) => this.#path(line)), this.cross);
  }

  #scale(width) {
    const steps = this.lines.flatMap((line) => [line.steps[0], line.steps.at(-1)]);
    const values = this.lines.flatMap((line) => line.values).filter((value) => value !== null);
    [this.first, this.last] = [Math.min(...steps), Math.max(...steps)];
    [this.low, this.high] = range(values, this.fromZero);
    const inner = width - MARGIN.left - MARGIN.right;
    const span = Math.max(this.last - this.first, 1);
    this.x = (step) => MARGIN.left + ((step - this.first) / span) * inner;
    this.step = (x) => this.first + ((x - MARGIN.left) / inner) * span;
    const tall = HEIGHT - MARGIN.top - MARGIN.bottom;
    this.y = (value) => MARGIN.top + (1 - (Math.min(value, this.high) - this.low) / (this.high - this.low)) * tall;
  }

  #grid(width) {
    const rows = ticks(this.low, this.high, 4).flatMap((value) => [
      svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: this.y(value), y2: this.y(value) }),
      svg(
        "text",
        { class: "tick", x: MARGIN.left - 8, y: this.y(value) + 4, "text-anchor": "end" },
        this.format(value),
      ),
    ]);
    const columns = ticks(this.first, this.last, Math.max(2, Math.floor(width / 110)))
      .filter(Number.isInteger)
      .map((step) =>
        svg(
          "text",
          { class: "tick", x: this.x(step), y: HEIGHT - 6, "text-anchor": "middle" },
          step.toLocaleString("en"),
        ),
      );
    return [...rows, ...columns];
  }

  #path(line) {
    let [path, pen] = ["", "M"];
    for (const index of extremes(line.values, this.place.clientWidth)) {
      const value = line.values[index];
      if (value !== null) path += `${pen}${this.x(line.steps[index]).toFixed(1)} ${this.y(value).toFixed(1)}`;
      pen = value === null ? "M" : "L";
    }
    if (line.steps.length === 1 && path) path += "h0.1";
    return svg("path", { class: `curve ${line.kind}`, d: path });
  }

  #point(event) {
    if (!this.lines.length) return;
    const box = this.picture.getBoundingClientRect();
    const wanted = this.step(event.clientX - box.left);
    const near = this.lines.map((line) => [line, nearest(line.steps, wanted)]);
    const [firstLine, firstIndex] = near[0];
    const step = firstLine.steps[firstIndex];
    const x = this.x(step);
    this.cross.setAttribute("x1", x);
    this.cross.setAttribute("x2", x);
    this.cross.setAttribute("visibility", "visible");
    this.readout.replaceChildren(
      html("strong", {}, `step ${step.toLocaleString("en")}`),
      ...near.map(([line, index]) =>
        html(
          "span",
          {},
          html("span", { class: `swatch ${line.kind}` }),
          `${line.name} ${line.values[index] === null ? "not finite" : this.format(line.values[index])}`,
        ),
      ),
    );
    this.readout.hidden = false;
    const left = Math.min(Math.max(x - this.readout.offsetWidth / 2, 0), box.width - this.readout.offsetWidth);
    this.readout.style.left = `${left}px`;
  }

  #leave() {
    this.readout.hidden = true;
    this.cross?.setAttribute("visibility", "hidden");
  }
}

/** Where the axis begins and ends; one warm-up peak may not flatten all that follows. */
function range(values, fromZero) {
  if (!values.length) return [0, 1];
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted[Math.floor(sorted.length / 2)];
  const least = fromZero ? Math.min(0, sorted[0]) : sorted[0];
  const most = middle > 0 ? Math.min(sorted.at(-1), middle * HIGHEST_ZOOM) : sorted.at(-1);
  const air = (most - least || Math.abs(most) || 1) * 0.06;
  return [fromZero ? least : least - air, most + air];
}

/** The places of at most about `most` values, so chosen that every peak, dip and gap stays. */
function extremes(values, most) {
  const size = Math.ceil((2 * values.length) / Math.max(most, 1));
  if (size <= 2) return values.keys();
  const kept = [];
  for (let start = 0; start < values.length; start += size) {
    const places = Array.from({ length: Math.min(size, values.length - start) }, (_, offset) => start + offset);
    const gap = places.find((place) => values[place] === null);
    places.sort((a, b) => values[a] - values[b]);
    kept.push(...[...new Set([places[0], gap ?? places[0], places.at(-1)])].sort((a, b) => a - b));
  }
  return kept;
}

/** Round numbers between two others. */
export function ticks(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const found = [];
  for (let tick = Math.ceil(low / size); tick * size <= high; tick += 1)
    found.push(Number((tick * size).toPrecision(12)));
  return found;
}

/** The index of the step nearest to `wanted` in a rising list. */
function nearest(steps, wanted) {
  let [low, high] = [0, steps.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (steps[middle] < wanted) low = middle;
    else high = middle;
  }
  return Math.abs(steps[low] - wanted) <= Math.abs(steps[high] - wanted) ? low : high;
}
