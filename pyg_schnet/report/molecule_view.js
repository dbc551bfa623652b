// Balls and sticks on a canvas, turned by dragging or by the arrow keys. Libraries for this are larger than the
// rest of the page, and would have to be copied into it.
"use strict";
(() => {
  const data = document.getElementById("structures-data");
  if (!data) return;
  const views = JSON.parse(data.textContent);
  const figure = document.querySelector("figure.structures");
  const stills = [...figure.querySelectorAll(".view")];

  const make = (tag, parent, properties = {}) => Object.assign(parent.appendChild(document.createElement(tag)), properties);
  const turn = document.createElement("div");
  turn.className = "turn";
  figure.prepend(turn);
  const select = make("select", turn, { ariaLabel: "structure" });
  views.forEach((view, k) => make("option", select, { value: k, textContent: view.title }));
  const canvas = make("canvas", turn, { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  const hint = make("p", turn, { className: "hint" });
  hint.setAttribute("aria-live", "polite");
  const usual = "Drag, or use the arrow keys, to turn it; + and − change its size, 0 resets the view. Point at an atom for its value.";
  stills.forEach((still) => still.querySelector(".title").remove());
  stills.forEach((still) => still.querySelector(".still").remove());

  let view, rotation, zoom, drawn = [];

  const turnBy = (right, up) => { // angles about the vertical and the horizontal axis of the screen
    const [c, s, d, t] = [Math.cos(right), Math.sin(right), Math.cos(up), Math.sin(up)];
    const [x, y, z] = rotation;
    const turned = x.map((_, k) => c * x[k] + s * z[k]);
    const back = x.map((_, k) => c * z[k] - s * x[k]);
    rotation = [turned, y.map((_, k) => d * y[k] - t * back[k]), y.map((_, k) => t * y[k] + d * back[k])];
  };
  const place = (point) => rotation.map((row) => row[0] * point[0] + row[1] * point[1] + row[2] * point[2]);

  function choose(k) {
    view = views[k];
    rotation = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
    zoom = 1;
    stills.forEach((still, number) => { still.hidden = number !== k; });
    canvas.setAttribute("aria-label", view.title);
    hint.textContent = usual;
    draw();
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, width / 2 * ratio, height / 2 * ratio);
    const reach = Math.max(...view.positions.map((p, k) => Math.hypot(...p) + view.radii[k]), ...view.cell.flat().map((p) => Math.hypot(...p))) + 0.2;
    const scale = zoom * Math.min(width, height) / 2 / reach;
    const stick = getComputedStyle(canvas).color, shapes = [];
    const line = (from, to, thick, depth) => shapes.push([depth, () => {
      context.strokeStyle = stick;
      context.lineWidth = thick * scale;
      context.lineCap = "butt";
      context.beginPath();
      context.moveTo(from[0] * scale, -from[1] * scale);
      context.lineTo(to[0] * scale, -to[1] * scale);
      context.stroke();
    }]);
    const placed = view.positions.map(place);
    for (const edge of view.cell) {
      const [from, to] = edge.map(place);
      line(from, to, 0.05, Math.min(from[2], to[2]) - 1e3);
    }
    for (const [first, second] of view.bonds) {
      const [from, to] = [placed[first], placed[second]];
      const length = Math.hypot(...from.map((value, k) => to[k] - value)) || 1;
      const along = (share) => from.map((value, k) => value + share * (to[k] - value));
      const ends = [view.radii[first] / length, 1 - view.radii[second] / length]; // at the surfaces of the balls
      if (ends[0] >= ends[1]) continue;
      const half = (ends[0] + ends[1]) / 2, seam = 0.01; // halves overlap, or a line would show
      const halves = [[along(ends[0]), along(half + seam)], [along(half - seam), along(ends[1])]];
      for (const [start, end] of halves) line(start, end, 0.16, (start[2] + end[2]) / 2);
    }
    drawn = placed.map((p, k) => ({ atom: k, x: p[0] * scale, y: -p[1] * scale, z: p[2], r: view.radii[k] * scale }));
    for (const ball of drawn) {
      shapes.push([ball.z, () => {
        const shade = context.createRadialGradient(ball.x - ball.r / 3, ball.y - ball.r / 3, 0, ball.x, ball.y, ball.r);
        shade.addColorStop(0, "rgb(255 255 255 / 0.35)");
        shade.addColorStop(0.5, "rgb(255 255 255 / 0)");
        shade.addColorStop(1, "rgb(0 0 0 / 0.25)");
        context.beginPath();
        context.arc(ball.x, ball.y, ball.r, 0, 2 * Math.PI);
        for (const style of [view.colors[ball.atom], shade]) {
          context.fillStyle = style;
          context.fill();
        }
        context.strokeStyle = "rgb(0 0 0 / 0.5)";
        context.lineWidth = 1;
        context.stroke();
        if (ball.r < 6) return;
        context.fillStyle = view.inks[ball.atom];
        context.font = `${Math.min(16, ball.r)}px sans-serif`;
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(view.symbols[ball.atom], ball.x, ball.y);
      }]);
    }
    shapes.sort((a, b) => a[0] - b[0]).forEach((shape) => shape[1]());
  }

  let from = null;
  canvas.addEventListener("pointerdown", (event) => {
    from = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from) {
      turnBy((event.clientX - from[0]) / 120, (event.clientY - from[1]) / 120);
      from = [event.clientX, event.clientY];
      draw();
      return;
    }
    const box = canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    const under = drawn.filter((ball) => Math.hypot(ball.x - x, ball.y - y) <= ball.r).sort((a, b) => b.z - a.z)[0];
    hint.textContent = under
      ? `${view.symbols[under.atom]}, atom ${under.atom}: ${view.values[under.atom]} ${view.scale.unit}`
      : usual;
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    const sizes = { "+": 1.15, "=": 1.15, "-": 1 / 1.15 };
    if (event.key in moves) turnBy(...moves[event.key]);
    else if (event.key in sizes) zoom *= sizes[event.key];
    else if (event.key === "0") return choose(Number(select.value));
    else return;
    event.preventDefault();
    draw();
  });
  select.addEventListener("change", () => choose(Number(select.value)));
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  choose(0);
})();
