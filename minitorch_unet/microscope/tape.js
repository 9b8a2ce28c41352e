"use strict";
// The slider: which operation runs, what is in memory after it, and the curve of bytes with its cursor.

const { moments, constant } = data.tape;
const CURVE = { width: 1000, height: 240, left: 64, bottom: 34, top: 12 };
const totals = moments.map((m) => constant + m.kept + m.held + m.inside);
const highest = Math.max(...totals);
let cursor;

const curveX = (i) => CURVE.left + ((CURVE.width - CURVE.left) * i) / moments.length;
const curveY = (bytes) => CURVE.top + (CURVE.height - CURVE.top - CURVE.bottom) * (1 - bytes / (1.05 * highest));

/** The curve: layers upon one another, each operation a step as wide as any other. */
function drawCurve() {
  const layers = [["--constant", () => constant], ["--map", (m) => m.kept], ["--held", (m) => m.held], ["--inside", (m) => m.inside]];
  const below = moments.map(() => 0);
  const areas = layers.map(([colour, height]) => {
    const lower = [...below];
    moments.forEach((m, i) => { below[i] += height(m); });
    const up = moments.map((_, i) => `${curveX(i)},${curveY(below[i])} ${curveX(i + 1)},${curveY(below[i])}`);
    const down = moments.map((_, i) => `${curveX(i + 1)},${curveY(lower[i])} ${curveX(i)},${curveY(lower[i])}`).reverse();
    return shape("polygon", { points: `${up.join(" ")} ${down.join(" ")}`, style: `fill: var(${colour})` });
  });
  const floor = CURVE.height - CURVE.bottom;
  const turn = moments.findIndex((m) => m.phase === "backward");
  const marks = [0, 0.5, 1].map((share) => share * highest);
  const parts = marks.flatMap((bytes) => [
    shape("line", { class: "axis", x1: CURVE.left, x2: CURVE.width, y1: curveY(bytes), y2: curveY(bytes) }),
    shape("text", { x: CURVE.left - 6, y: curveY(bytes) + 4, "text-anchor": "end" }, bytesText(Math.round(bytes))),
  ]);
  cursor = shape("line", { class: "cursor", y1: CURVE.top - 6, y2: floor + 6 });
  const picture = shape("svg", { viewBox: `0 0 ${CURVE.width} ${CURVE.height}`, role: "img",
    "aria-label": `Memory over the step: at most ${bytesText(highest)}` },
    ...parts, ...areas,
    shape("line", { class: "axis", x1: curveX(turn), x2: curveX(turn), y1: CURVE.top, y2: floor }),
    shape("text", { x: curveX(turn / 2), y: floor + 22, "text-anchor": "middle" }, "forward →"),
    shape("text", { x: curveX((turn + moments.length) / 2), y: floor + 22, "text-anchor": "middle" }, "backward →"),
    cursor);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * CURVE.width;
    showMoment(Math.floor(((x - CURVE.left) / (CURVE.width - CURVE.left)) * moments.length));
  });
  byId("tape-curve").replaceChildren(picture);
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
    element("span", { class: "small" }, `${m.shapes}, ${text(m.ms)} ms.`), element("br"),
    element("span", { id: "tape-memory" }, `In memory: ${bytesText(constant + m.kept + m.held)}; ` +
      `${plural(m.maps.length, "map stack")} (with the image), ${plural(m.gradients.length, "gradient")} of maps.${weights}`));
  const x = (curveX(number) + curveX(number + 1)) / 2;
  cursor.setAttribute("x1", x);
  cursor.setAttribute("x2", x);
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
showMoment(moments.findIndex((m) => m.phase === "backward") - 1);
