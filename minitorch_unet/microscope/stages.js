"use strict";
// The drawing as a row of buttons (one stop for Tab, arrows move among them), and the panel of the chosen stage.

const boxes = [...document.querySelectorAll("#u .stage")].sort((a, b) => a.dataset.stage - b.dataset.stage);

/** Put the keyboard's place on a box; `focus`: and the focus, too. */
function placeOn(number, focus) {
  boxes.forEach((box, i) => box.setAttribute("tabindex", i === number ? 0 : -1));
  if (focus) {
    boxes[number].focus({ preventScroll: true });
    bringIntoView(number);
  }
}

/** Scroll the drawing, and nothing else, so far that a box is seen. */
function bringIntoView(number) {
  const frame = byId("u-scroll");
  const outer = frame.getBoundingClientRect();
  const inner = boxes[number].getBoundingClientRect();
  if (inner.left < outer.left + 20 || inner.right > outer.right - 20) {
    frame.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
  }
}

/** Open a stage in the panel below. */
function openStage(number) {
  boxes.forEach((box, i) => {
    box.classList.toggle("chosen", i === number);
    box.setAttribute("aria-pressed", i === number);
  });
  placeOn(number, false);
  bringIntoView(number);
  byId("stage-select").value = number;
  const { name, shape: [channels, rows, columns] } = data.stages[number];
  byId("stage").dataset.open = name;
  byId("u-chosen").replaceChildren(element("strong", {}, name), `, ${plural(channels, "map")} of ${rows} × ${columns}: `,
    element("a", { href: "#stage" }, "look inside ↓"));
  byId("stage-title").textContent = `Stage: ${name}`;
  byId("stage-body").replaceChildren(...stageParts(data.stages[number]));
}

/** Everything that is known of a stage. */
function stageParts(stage) {
  const [channels, rows, columns] = stage.shape;
  const parts = [
    element("p", {}, stage.text),
    element("div", { class: "facts" },
      fact(`${channels} × ${rows} × ${columns}`, "channels × rows × columns"),
      fact(bytesText(stage.bytes), stage.kind === "crop" ? "memory (a view of another stage's)" : "memory of its maps"),
      fact(`${text(stage.ms.forward)} ms`, "forward"),
      fact(`${text(stage.ms.backward)} ms`, "backward"),
      ...(stage.weights ? [fact(stage.weights.count.toLocaleString("en"), "weights and biases")] : []),
    ),
  ];
  if (stage.inputs.length) parts.push(element("p", { class: "small quiet" }, `Computed from ${stage.inputs.join(" and ")}.`));
  if (!stage.maps) return parts;
  parts.push(element("h3", {}, "Statistics"), statisticsOf(stage), ...deadUnits(stage));
  const sides = [mapsOf(stage.maps, "Feature maps",
    `Each map by itself: black is its smallest value, white its largest; both stand below it.`)];
  if (stage.gradients) {
    sides.push(mapsOf(stage.gradients, "Gradients of the loss with respect to these maps",
      "Orange: a larger value here would raise the loss; blue: lower it; white: no effect. Full colour is the 99th " +
      "percentile of the sizes in the map."));
  } else {
    sides.push(element("p", { class: "small quiet" }, "No gradient: training needs none of the image itself."));
  }
  parts.push(element("div", { class: "columns" }, ...sides.map((side) => element("div", {}, side))));
  if (stage.weights) parts.push(weightsOf(stage));
  return parts;
}

function statisticsOf(stage) {
  const row = (name, s) => [name, ...["mean", "sd", "min", "max"].map((key) => numberCell(s[key], 3)),
    element("td", { class: "number", "data-value": s.zeros }, `${(100 * s.zeros).toFixed(1)} %`)];
  const rows = [row("maps", stage.maps.statistics)];
  if (stage.gradients) rows.push(row("gradients", stage.gradients.statistics));
  if (stage.weights) rows.push(row("weights", stage.weights.statistics));
  if (stage.weights?.bias) rows.push(row("biases", stage.weights.bias));
  if (stage.weightGradient) rows.push(row("weight gradients", stage.weightGradient));
  return table(["", "mean", "sd", "min", "max", "zeros"], rows, { id: "statistics" });
}

function deadUnits(stage) {
  const { dead, dead_count: count, of } = stage.maps;
  if (dead === undefined) return [];
  if (!count) return [element("p", { id: "dead" }, "No dead units: every channel is above 0 somewhere.")];
  const rest = count > dead.length ? " and more" : "";
  return [element("p", { id: "dead" },
    `${count} of ${plural(of, "channel")} ${count === 1 ? "is" : "are"} 0 everywhere on this image, dead here: ` +
    `${dead.join(", ")}${rest}. No gradient passes them.`)];
}

/** Pictures of maps: tiles of one picture, in which they stand below one another. */
function mapsOf(looked, title, how) {
  const { src, size, ranges } = looked.maps;
  const count = looked.channels.length;
  const shown = count < looked.of ? `The ${count} of ${looked.of} that vary most. ` : "";
  const tiles = looked.channels.map((channel, i) => {
    const [low, high] = ranges[i];
    const range = low === -high ? `±${text(high, 3)}` : `${text(low, 3)} … ${text(high, 3)}`;
    const tile = element("div", { class: "tile", role: "img", "aria-label": `channel ${channel}, ${range}` });
    tile.style.aspectRatio = `${size[1]} / ${size[0]}`;
    tile.style.backgroundImage = `url(${src})`;
    tile.style.backgroundPosition = count > 1 ? `0 ${(100 * i) / (count - 1)}%` : "0 0";
    return element("figure", {}, tile, element("figcaption", {}, `${channel}: ${range}`));
  });
  return element("div", {}, element("h3", {}, title), element("p", { class: "small quiet" }, shown + how),
    element("div", { class: "maps" }, ...tiles));
}

function weightsOf(stage) {
  const { shape: [filters, channels, r, s], shown, picture, histogram, statistics } = stage.weights;
  const board = element("img", { class: "board", src: picture.src, alt: `weights of ${shown[0]} filters` });
  board.style.width = `${picture.size[1] * 5}px`;
  const part = shown[0] < filters || shown[1] < channels ? `Shown are ${shown[0]} × ${shown[1]} of them. ` : "";
  const left = element("div", {},
    element("h3", {}, "Weights"),
    element("p", { class: "small quiet" },
      `${filters} × ${channels} kernels of ${r} × ${s}: a row for each filter, a column for each channel it reads. ${part}` +
      `Orange is positive, blue negative, white 0; full colour is ±${text(picture.reach)}.`),
    element("div", { class: "scroll" }, board));
  const right = element("div", { class: "histogram" },
    element("h3", {}, "Their distribution"),
    element("p", { class: "small quiet" }, `How often each value occurs, from −${text(histogram.reach)} to ` +
      `${text(histogram.reach)}; standard deviation ${text(statistics.sd)}.`),
    histogramOf(histogram));
  return element("div", { class: "columns" }, left, right);
}

function histogramOf({ reach, counts }) {
  const [width, height, most] = [420, 120, Math.max(...counts)];
  const step = width / counts.length;
  const bars = counts.map((count, i) => shape("rect", {
    x: i * step + 0.5, width: step - 1, y: height - (height * count) / most, height: (height * count) / most }));
  const label = (x, anchor, value) => shape("text", { x, y: height + 16, "text-anchor": anchor }, value);
  return shape("svg", { viewBox: `0 0 ${width} ${height + 20}`, role: "img", "aria-label": "histogram of the weights" },
    ...bars, label(0, "start", `−${text(reach)}`), label(width / 2, "middle", "0"), label(width, "end", text(reach)));
}

boxes.forEach((box, number) => {
  box.addEventListener("click", () => openStage(number));
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: number + 1, ArrowDown: number + 1, ArrowLeft: number - 1, ArrowUp: number - 1, Home: 0,
      End: boxes.length - 1 };
    if (event.key === "Enter" || event.key === " ") openStage(number);
    else if (event.key in moves) placeOn(Math.min(Math.max(moves[event.key], 0), boxes.length - 1), true);
    else return;
    event.preventDefault();
  });
});
byId("stage-select").append(...data.stages.map((stage, i) => option(i, stage.name)));
byId("stage-select").addEventListener("change", (event) => openStage(Number(event.target.value)));
openStage(Math.min(2, boxes.length - 1));
