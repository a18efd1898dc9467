"use strict";
const charts = [...document.querySelectorAll(".chart")].map((place) => ({
  place,
  figure: JSON.parse(place.querySelector("script").textContent),
}));

function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function themed(layout) {
  const axis = { gridcolor: color("--grid"), zerolinecolor: color("--grid"), linecolor: color("--grid") };
  return {
    height: 320,
    margin: { l: 60, r: 12, t: 12, b: 48 },
    hovermode: "x unified",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    ...layout,
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color: color("--text"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: { bgcolor: color("--back"), bordercolor: color("--grid"), font: { color: color("--text") } },
    xaxis: { ...axis, ...layout.xaxis, fixedrange: matchMedia("(pointer: coarse)").matches },
    yaxis: { ...axis, ...layout.yaxis, fixedrange: matchMedia("(pointer: coarse)").matches },
  };
}

function draw() {
  for (const { place, figure } of charts) {
    Plotly.react(place, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false, displaylogo: false });
  }
}

draw();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
