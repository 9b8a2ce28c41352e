"use strict";
// The slider: which operation runs, what is in memory after it, and the curve of bytes with its cursor.

const { moments, constant } = data.tape;
// What an operation does, forward and backward, for those who meet it here.
const DOES = {
  conv2d_relu: ["Every window times the weights, plus bias; what is negative becomes 0. The sources and the result are kept.",
    "Where the ReLU gave 0 nothing passes. The rest gives the gradient of the weights, and of the maps before."],
  conv2d: ["Every window times the weights, plus bias. The maps before are kept, for the gradient of the weights.",
    "Gives the gradient of the weights, from the kept maps, and of the maps before, from the weights."],
  conv2d_input_grad: ["Each pixel times a kernel, laid down beside its neighbours': a convolution run backwards.",
    "An ordinary convolution of the gradient: the way back of an up-convolution."],
  max_pool2d: ["The largest of each 2 × 2 pixels goes on; which one it was is kept.",
    "Each gradient goes to the pixel that was the largest; the other three get 0."],
  pad2d: ["The rim is cut off: a view, nothing is computed or copied.",
    "The gradient is that of the window; outside it is 0. It joins the gradient that comes through the pooling."],
  softmax_cross_entropy: ["Scores become probabilities; the loss is the mean of −log of the right class's.",
    "The gradient of each score: probability minus 1 for the right class, minus 0 for the others, over the number of pixels."],
  batch_norm: ["Each channel is shifted and scaled by constants learned in training, then the ReLU.",
    "The gradient times the scale, where the ReLU let through."],
  relu: ["What is negative becomes 0.", "The gradient passes where the result was above 0."],
  cat: ["The channels of both are copied behind one another.", "The gradient is cut in two again."],
};

const totals = moments.map((m) => constant + m.kept + m.held + m.inside);
const highest = Math.max(...totals);
const curve = { width: 0, height: 220, left: 68, bottom: 30, top: 12, cursor: null, at: 0 };

const curveX = (i) => curve.left + ((curve.width - curve.left) * i) / moments.length;
const curveY = (bytes) => curve.top + (curve.height - curve.top - curve.bottom) * (1 - bytes / (1.05 * highest));

/** The curve: layers upon one another, each operation a step as wide as any other. Drawn for the width there is. */
function drawCurve() {
  curve.width = Math.max(byId("tape-curve").clientWidth, 240);
  const layers = [["--constant", () => constant], ["--map", (m) => m.kept], ["--held", (m) => m.held],
    ["--inside", (m) => m.inside]];
  const below = moments.map(() => 0);
  const areas = layers.map(([colour, height]) => {
    const lower = [...below];
    moments.forEach((m, i) => { below[i] += height(m); });
    const up = moments.map((_, i) => `${curveX(i)},${curveY(below[i])} ${curveX(i + 1)},${curveY(below[i])}`);
    const down = moments.map((_, i) => `${curveX(i + 1)},${curveY(lower[i])} ${curveX(i)},${curveY(lower[i])}`).reverse();
    return shape("polygon", { points: `${up.join(" ")} ${down.join(" ")}`, style: `fill: var(${colour})` });
  });
  const floor = curve.height - curve.bottom;
  const turn = moments.findIndex((m) => m.phase === "backward");
  const marks = [0, 0.5, 1].flatMap((share) => {
    const y = curveY(share * highest);
    return [shape("line", { class: "axis", x1: curve.left, x2: curve.width, y1: y, y2: y }),
      shape("text", { x: curve.left - 6, y: y + 4, "text-anchor": "end" }, bytesText(Math.round(share * highest)))];
  });
  const label = (at, words) => shape("text", { x: curveX(at), y: floor + 22, "text-anchor": "middle" }, words);
  curve.cursor = shape("line", { class: "cursor", y1: curve.top - 8, y2: floor + 6 });
  const picture = shape("svg", { viewBox: `0 0 ${curve.width} ${curve.height}`, role: "img",
    "aria-label": `Memory over the step: at most ${bytesText(highest)}` },
    ...marks, ...areas,
    shape("line", { class: "axis", x1: curveX(turn), x2: curveX(turn), y1: curve.top, y2: floor }),
    label(turn / 2, "forward →"), label((turn + moments.length) / 2, "backward →"), curve.cursor);
  picture.addEventListener("click", (event) => {
    const x = event.clientX - picture.getBoundingClientRect().left;
    showMoment(Math.floor(((x - curve.left) / (curve.width - curve.left)) * moments.length));
  });
  byId("tape-curve").replaceChildren(picture);
  placeCursor();
}

function placeCursor() {
  for (const end of ["x1", "x2"]) curve.cursor.setAttribute(end, curveX(curve.at + 0.5));
}

/** Stand at operation number i, counted from 0. */
function showMoment(i) {
  const number = Math.min(Math.max(i, 0), moments.length - 1);
  const m = moments[number];
  const [maps, gradients] = [new Set(m.maps), new Set(m.gradients)];
  boxes.forEach((box, stage) => {
    box.classList.toggle("alive", maps.has(stage));
    box.classList.toggle("graded", gradients.has(stage));
    box.classList.toggle("running", stage === m.stage);
  });
  byId("loss-mark").classList.toggle("running", m.stage < 0);
  if (m.stage >= 0) bringIntoView(m.stage);
  const slider = byId("tape");
  slider.value = number;
  const title = `${number + 1} of ${moments.length}, ${m.phase}: ${m.name}, ${m.op}`;
  slider.setAttribute("aria-valuetext", title);
  const weights = m.weights.length ? ` Weights of ${plural(m.weights.length, "stage")} have their gradient.` : "";
  byId("tape-now").replaceChildren(
    element("strong", {}, title), element("br"),
    ...(DOES[m.op] ? [DOES[m.op][m.phase === "forward" ? 0 : 1], element("br")] : []),
    element("span", { class: "small number" }, `${m.shapes}, ${text(m.ms)} ms`), element("br"),
    element("span", { id: "tape-memory" }, `In memory: ${bytesText(constant + m.kept + m.held)}; ` +
      `${plural(m.maps.length, "map stack")} (with the image), ${plural(m.gradients.length, "gradient")} of maps.${weights}`));
  curve.at = number;
  placeCursor();
}

let playing = 0;

/** Play the tape from where it stands, or from its beginning; or stop. */
function play() {
  if (playing) {
    clearInterval(playing);
    playing = 0;
  } else {
    const slider = byId("tape");
    if (Number(slider.value) === moments.length - 1) showMoment(0);
    playing = setInterval(() => {
      showMoment(Number(slider.value) + 1);
      if (Number(slider.value) === moments.length - 1) play();
    }, 300);
  }
  byId("tape-play").textContent = playing ? "Stop" : "Play";
}

byId("tape").max = moments.length - 1;
byId("tape").addEventListener("input", (event) => showMoment(Number(event.target.value)));
byId("tape-back").addEventListener("click", () => showMoment(Number(byId("tape").value) - 1));
byId("tape-on").addEventListener("click", () => showMoment(Number(byId("tape").value) + 1));
byId("tape-play").addEventListener("click", play);
drawCurve();
// In the next frame: an observer that resizes what it observes is an error to the browser.
new ResizeObserver(() => requestAnimationFrame(() => {
  if (byId("tape-curve").clientWidth !== curve.width) drawCurve();
})).observe(byId("tape-curve"));
showMoment(moments.findIndex((m) => m.phase === "backward") - 1);
