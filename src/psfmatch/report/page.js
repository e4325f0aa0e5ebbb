"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);

  const array = (image) => {
    if (!image.values) {
      const bytes = Uint8Array.from(atob(image.data), (c) => c.charCodeAt(0));
      image.values = new Float32Array(bytes.buffer);
    }
    return image.values;
  };

  const format = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "no value");

  // An image on a canvas: colours by an asinh stretch, the value under the pointer or the arrow keys in an output.
  class Picture {
    constructor(canvas, readout, { signed, unit, linear, originX, originY }) {
      Object.assign(this, { canvas, readout, signed, unit, linear, originX, originY });
      this.map = signed ? data.colours.signed : data.colours.flux;
      canvas.addEventListener("pointermove", (event) => {
        const place = canvas.getBoundingClientRect();
        this.point(
          Math.floor(((event.clientX - place.left) / place.width) * this.image.columns),
          this.image.rows - 1 - Math.floor(((event.clientY - place.top) / place.height) * this.image.rows),
        );
      });
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
        if (!step) return;
        event.preventDefault();
        const [x, y] = this.at ?? [Math.floor(this.image.columns / 2), Math.floor(this.image.rows / 2)];
        this.point(x + (this.at ? step[0] : 0), y + (this.at ? step[1] : 0));
      });
      canvas.addEventListener("blur", () => this.leave());
      canvas.addEventListener("pointerleave", () => this.leave());
    }

    show(image, peak, name) {
      Object.assign(this, { image, peak, name, at: null });
      this.canvas.width = image.columns;
      this.canvas.height = image.rows;
      this.canvas.setAttribute("aria-label", `${name}. Arrow keys read the value of each pixel.`);
      this.draw();
    }

    draw() {
      const { rows, columns } = this.image;
      const values = array(this.image);
      const context = this.canvas.getContext("2d");
      const pixels = context.createImageData(columns, rows);
      const low = this.signed ? -1 : 0;
      const stretch = (v) => Math.asinh(v / this.peak / this.linear) / Math.asinh(1 / this.linear);
      for (let y = 0; y < rows; y++) {
        for (let x = 0; x < columns; x++) {
          const share = (Math.min(1, Math.max(low, stretch(values[y * columns + x]))) - low) / (1 - low);
          const last = this.map.length - 1;
          const colour = Number.isFinite(share) ? this.map[Math.round(share * last)] : [128, 128, 128];
          pixels.data.set([...colour, 255], 4 * ((rows - 1 - y) * columns + x));
        }
      }
      if (this.at) {
        const k = 4 * ((rows - 1 - this.at[1]) * columns + this.at[0]);
        pixels.data.set([230, 0, 120, 255], k);
      }
      context.putImageData(pixels, 0, 0);
    }

    point(x, y) {
      const { rows, columns } = this.image;
      this.at = [Math.min(columns - 1, Math.max(0, x)), Math.min(rows - 1, Math.max(0, y))];
      const value = array(this.image)[this.at[1] * columns + this.at[0]];
      const px = this.at[0] * (this.image.step ?? 1) + (this.originX ?? -Math.floor(columns / 2));
      const py = this.at[1] * (this.image.step ?? 1) + (this.originY ?? -Math.floor(rows / 2));
      this.readout.textContent = `${this.name} at x = ${px}, y = ${py} px: ${format(value)}${this.unit}`;
      this.draw();
    }

    leave() {
      this.at = null;
      if (this.image) this.draw();
    }
  }

  const peakOf = (image) => array(image).reduce((most, v) => Math.max(most, Math.abs(v)), 1e-30);

  const pictures = (root, readout) =>
    Object.fromEntries(
      [...root.querySelectorAll("canvas[data-part]")].map((canvas) => {
        const signed = ["kernel", "difference"].includes(canvas.dataset.part);
        const linear = canvas.dataset.part === "difference" ? 1 : signed ? 0.02 : 0.01;
        const unit = canvas.dataset.part === "difference" ? " % of the target's peak" : "";
        return [canvas.dataset.part, new Picture(canvas, readout, { signed, unit, linear })];
      }),
    );

  if (data.candidates) {
    const root = byId("candidate-live");
    const select = byId("candidate");
    const shown = pictures(root, byId("candidate-value"));
    const spots = [...root.querySelectorAll(".spot")];
    const worst = Math.max(...data.candidates.map((c) => peakOf(c.difference)));
    const choose = (index) => {
      const one = data.candidates[index];
      const top = Math.max(peakOf(one.science), peakOf(one.target));
      select.value = String(index);
      for (const part of ["science", "matched", "target"]) shown[part].show(one[part], top, `${part} PSF`);
      shown.kernel.show(one.kernel, peakOf(one.kernel), "kernel");
      shown.difference.show(one.difference, worst, "matched minus target");
      spots.forEach((spot) => spot.classList.toggle("chosen", Number(spot.dataset.index) === index));
      byId("candidate-summary").textContent = one.words;
      byId("candidate-value").textContent = "";
    };
    select.addEventListener("change", () => choose(Number(select.value)));
    spots.forEach((spot) => spot.addEventListener("click", () => choose(Number(spot.dataset.index))));
    choose(data.hardest);
    root.hidden = false;
  }

  if (data.sizes) {
    const root = byId("size-live");
    const slider = byId("kernel-size");
    const shown = pictures(root, byId("size-value"));
    const worst = Math.max(...data.sizes.map((s) => peakOf(s.difference)));
    const move = (index) => {
      const one = data.sizes[index];
      slider.value = String(index);
      slider.setAttribute("aria-valuetext", one.words);
      byId("size-words").textContent = one.words;
      byId("size-line").setAttribute("transform", `translate(${one.at} 0)`);
      shown.kernel.show(one.kernel, peakOf(one.kernel), `kernel of ${one.size} px`);
      shown.difference.show(one.difference, worst, "matched minus target");
      byId("size-value").textContent = "";
    };
    slider.addEventListener("input", () => move(Number(slider.value)));
    byId("size-reset").addEventListener("click", () => move(data.chosen));
    move(data.chosen);
    root.hidden = false;
  }

  if (data.image) {
    const root = byId("image-live");
    const picture = new Picture(byId("coadd-image"), byId("image-value"), {
      signed: false, unit: data.image.unit, linear: data.image.linear, originX: data.image.x0, originY: data.image.y0,
    });
    picture.show(data.image, data.image.peak, "image");
    root.hidden = false;
  }
})();
