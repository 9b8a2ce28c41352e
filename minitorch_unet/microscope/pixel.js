"use strict";
// A pixel of the scores: where it looks, its scores and loss. Rows and columns on the page are those of the image; inside
// here they are those of the scores, counted from 0.

const { start, shape: seen, halo, out } = data.window;
const scores = unpacked(data.scores);
const target = unpacked(data.target);
const { stride } = data;
const IGNORED = 255;
const offset = [start[0] + halo, start[1] + halo];
let pixel = [...data.pixels[0].pixel];

/** Number of the worked-out pixel at a place, -1 if there is none. */
const preparedAt = ([row, column]) => data.pixels.findIndex((p) => p.pixel[0] === row && p.pixel[1] === column);

/** A place that has scores on the page, in the range, nearest to a wish. */
function legal(wish) {
  return wish.map((value, axis) => {
    const near = Math.min(Math.max(Math.round(value), 0), out[axis] - 1);
    return near - (near % stride);
  });
}

/** Scores, probabilities, target class and loss at a place that `legal` gave, or at a worked-out pixel. */
function valuesAt(place) {
  const [classes, rows, columns] = scores.shape;
  const at = Math.floor(place[0] / stride) * columns + Math.floor(place[1] / stride);
  const prepared = data.pixels[preparedAt(place)];
  const logits = prepared?.logits ?? Array.from({ length: classes }, (_, k) => scores.values[k * rows * columns + at]);
  const most = Math.max(...logits);
  const sizes = logits.map((value) => Math.exp(value - most));
  const total = sizes.reduce((a, b) => a + b, 0);
  const label = prepared?.label ?? target.values[at];
  const loss = label === IGNORED ? null : Math.log(total) + most - logits[label];
  return { logits, probabilities: sizes.map((size) => size / total), label, loss };
}

/** A rectangle drawn twice, dark below, so that it is seen on any ground. */
function outline(kind, x, y, width, height) {
  const at = { x, y, width, height };
  return [shape("rect", { ...at, class: "outline dark" }), shape("rect", { ...at, class: `outline ${kind}` })];
}

/** A cross at a place, `size` pixels long to each side. */
function cross(kind, x, y, size) {
  const path = `M${x - size} ${y}H${x + size}M${x} ${y - size}V${y + size}`;
  return [shape("path", { d: path, class: "outline dark" }), shape("path", { d: path, class: `outline ${kind}` })];
}

function picture(src, [rows, columns], label, ...marks) {
  return shape("svg", { viewBox: `0 0 ${columns} ${rows}`, role: "img", "aria-label": label },
    shape("image", { href: src, width: columns, height: rows }), ...marks);
}

const figure = (svg, ...caption) => element("figure", {}, svg, element("figcaption", {}, ...caption));

/** The image with what the pixel sees, the prediction to choose from, the label, the measured field. */
function showPictures() {
  const [row, column] = pixel;
  const number = preparedAt(pixel);
  const [[top, bottom], [left, right]] = [data.rows[row], data.columns[column]];
  const marks = [
    ...outline("region", halo, halo, out[1], out[0]),
    ...outline("theory", left, top, right - left + 1, bottom - top + 1),
  ];
  const measured = number < 0 ? null : data.pixels[number];
  if (measured?.box) {
    const [t, l, b, r] = measured.box;
    marks.push(outline("measured", l, t, r - l + 1, b - t + 1)[1]); // over the other one: its dashes let it show
  }
  marks.push(...cross("mark", column + halo + 0.5, row + halo + 0.5, seen[0] / 60));
  const figures = [figure(picture(data.pictures.image, seen, "the image and what the pixel sees of it", ...marks),
    element("span", {}, "The image. Blue: the receptive field by arithmetic; orange: measured, for pixels marked +; dotted: " +
      "the part that has scores."))];

  const crosses = data.pixels.flatMap(({ pixel: [r, c] }) => cross("prepared", c + 0.5, r + 0.5, out[0] / 50));
  const chooser = picture(data.pictures.prediction, out, "", ...crosses,
    ...cross("mark", column + 0.5, row + 0.5, out[0] / 24));
  chooser.id = "pick";
  chooser.setAttribute("tabindex", 0);
  chooser.setAttribute("role", "application");
  chooser.setAttribute("aria-label", `Prediction; row ${row + offset[0]}, column ${column + offset[1]} is chosen; arrow keys move`);
  chooser.addEventListener("click", pickByClick);
  chooser.addEventListener("keydown", pickByKey);
  figures.push(figure(chooser, `The prediction: ${data.pictures.meaning}.`));
  if (data.pictures.label) {
    figures.push(figure(picture(data.pictures.label, out, "the label",
      ...cross("mark", column + 0.5, row + 0.5, out[0] / 24)), "The label; grey pixels count nothing."));
  }
  if (measured?.src) {
    const [t, l, b, r] = measured.box;
    figures.push(figure(picture(measured.src, [b - t + 1, r - l + 1], "measured receptive field"),
      "How much each pixel of the image moves the score: the size of the gradient, its square root as grey, " +
      `white = ${text(measured.largest)}.`));
  }
  const focused = document.activeElement?.id === "pick";
  byId("pictures").replaceChildren(...figures);
  if (focused) byId("pick").focus({ preventScroll: true });
}

function pickByClick(event) {
  const box = event.currentTarget.getBoundingClientRect();
  choosePixel([((event.clientY - box.top) / box.height) * out[0] - 0.5, ((event.clientX - box.left) / box.width) * out[1] - 0.5]);
}

function pickByKey(event) {
  const step = Math.max(event.shiftKey ? 10 : 1, stride);
  const moves = { ArrowUp: [-step, 0], ArrowDown: [step, 0], ArrowLeft: [0, -step], ArrowRight: [0, step] };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  choosePixel([pixel[0] + move[0], pixel[1] + move[1]]);
}

function showScores() {
  const { logits, probabilities, label, loss } = valuesAt(pixel);
  const rows = logits.map((logit, k) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = `rgb(${data.pictures.classes[k].join(" ")})`;
    return [element("td", {}, swatch, `${k}${k === label ? (data.labelled ? " (label)" : " (predicted)") : ""}`),
      numberCell(logit), numberCell(probabilities[k])];
  });
  const how = data.labelled ? "its label" : "its own prediction, as no label was given";
  byId("pixel-scores").replaceChildren(
    element("h3", {}, "Scores and loss"),
    table(["class", "logit", "probability"], rows, { id: "scores" }),
    loss === null ? element("p", {}, "This pixel is ignored: it adds nothing to the loss.")
      : element("p", {}, "Loss, −log of the probability of ", how, ": ",
        element("strong", { class: "number", id: "pixel-loss", "data-value": loss }, text(loss))));
}

function showField() {
  const [[top, bottom], [left, right]] = [data.rows[pixel[0]], data.columns[pixel[1]]];
  const range = (first, last, from) => `${first + from}–${last + from}`;
  const rows = [["by arithmetic", element("td", { class: "number", id: "theory" }, `${bottom - top + 1} × ${right - left + 1}`),
    element("td", { class: "number" }, range(top, bottom, start[0])), element("td", { class: "number" }, range(left, right, start[1]))]];
  const number = preparedAt(pixel);
  const measured = number < 0 ? null : data.pixels[number];
  if (measured?.box) {
    const [t, l, b, r] = measured.box;
    rows.push(["by gradient", element("td", { class: "number", id: "measured" }, `${b - t + 1} × ${r - l + 1}`),
      element("td", { class: "number" }, range(t, b, start[0])), element("td", { class: "number" }, range(l, r, start[1]))]);
  }
  const notes = [];
  if (measured?.sides) {
    const [half, most, nearly] = measured.sides;
    notes.push(`Half of the gradient lies within ${half} × ${half} pixels around the place, 90 % within ${most} × ${most}, ` +
      `99 % within ${nearly} × ${nearly}: the rim is seen, but it hardly counts.`);
  } else if (measured) {
    notes.push("The gradient of this score is 0 everywhere: a dead ReLU stands in every way to the image.");
  } else {
    notes.push("Measured for the pixels marked + only.");
  }
  if (data.coupled) {
    notes.push("This network's normalisation takes mean and variance over whole maps: a little of every pixel reaches " +
      "every score, beyond what the windows see.");
  }
  byId("pixel-field").replaceChildren(
    element("h3", {}, "Receptive field"),
    table(["", "size", "rows", "columns"], rows, { id: "field" }),
    ...notes.map((note) => element("p", {}, note)));
}

/** Go to a pixel of the scores. */
function choosePixel(wish, exact = false) {
  pixel = exact ? [...wish] : legal(wish);
  byId("row").value = pixel[0] + offset[0];
  byId("column").value = pixel[1] + offset[1];
  byId("prepared").value = preparedAt(pixel);
  showPictures();
  showScores();
  showField();
  showConvolution(preparedAt(pixel));
}

byId("prepared").append(option(-1, "none"), ...data.pixels.map(({ pixel: [r, c] }, i) =>
  option(i, `row ${r + offset[0]}, column ${c + offset[1]}`)));
byId("prepared").addEventListener("change", (event) => {
  if (event.target.value >= 0) choosePixel(data.pixels[event.target.value].pixel, true);
});
for (const [axis, id] of ["row", "column"].entries()) {
  const input = byId(id);
  [input.min, input.max, input.step] = [offset[axis], offset[axis] + out[axis] - 1, stride];
  input.addEventListener("change", () => {
    choosePixel([0, 1].map((i) => (i === axis ? Number(input.value) - offset[i] : pixel[i])));
  });
}
byId("convolution-select").value = Object.keys(data.windows).find((name) => name === "merge 0 conv 2");
byId("convolution-select").addEventListener("change", () => showConvolution(preparedAt(pixel)));
choosePixel(pixel, true);
