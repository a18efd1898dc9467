// Loss and throughput over the steps. Points come as they are made; what is drawn is thinned, never averaged.

import { LineChart } from "./chart.js";
import { heading, html, legend } from "./dom.js";
import { count, plain } from "./format.js";

const MOST_POINTS = 6000;

export class Curves {
  constructor(loss, throughput) {
    this.points = [];
    this.evaluations = []; // [step, validation loss]
    this.pools = [];
    this.key = html("div", {});
    this.lossKey = html("div", {});
    const [lossPlace, ratePlace] = [html("div", {}), html("div", {})];
    loss.append(heading("Loss", this.lossKey), lossPlace);
    throughput.append(heading("Tokens per second", this.key), ratePlace);
    this.loss = new LineChart(lossPlace, { label: "loss by step", format: (value) => plain(value) });
    this.rate = new LineChart(ratePlace, { label: "tokens per second by step", format: count, fromZero: true });
  }

  /** `reset` starts over; `points` are [step, loss, tokens/s, {pool: capacity}, {pool: tokens/s}]. */
  add({ reset, points }) {
    if (reset) this.points = [];
    this.points.push(...points);
    if (this.points.length > MOST_POINTS) this.points = this.points.filter((_, index) => index % 2 === 0);
  }

  name(pools) {
    this.pools = pools;
    this.key.replaceChildren(
      legend([["line-job", "job"], ...pools.map((pool) => [`line-pool pool-${pool.color}`, pool.name])]),
    );
  }

  draw() {
    const steps = this.points.map((point) => point[0]);
    const losses = { name: "loss", kind: "line-loss", steps, values: this.points.map((point) => point[1]) };
    const checked = {
      name: "validation loss",
      kind: "line-validation",
      steps: this.evaluations.map(([step]) => step),
      values: this.evaluations.map(([, loss]) => loss),
    };
    this.lossKey.replaceChildren(
      checked.steps.length
        ? legend([
            ["line-loss", "training"],
            ["line-validation", "validation"],
          ])
        : "",
    );
    this.loss.show([losses, checked]);
    this.rate.show([
      { name: "job", kind: "line-job", steps, values: this.points.map((point) => point[2]) },
      ...this.pools.map(({ name, color }) => ({
        name,
        kind: `line-pool pool-${color}`,
        steps,
        values: this.points.map((point) => point[4][name] ?? null),
      })),
    ]);
  }
}
