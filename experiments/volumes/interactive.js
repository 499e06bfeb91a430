// Volumes that turn: one 3D scene for all volumes of a turntable, so that the camera stays when the volume changes.
"use strict";

for (const table of document.querySelectorAll(".turntable")) {
  const { meshes, camera, colour, light, range } = JSON.parse(table.querySelector("script").textContent);
  const [plot, slider, name] = ["div", "input", "output"].map((tag) => table.querySelector(tag));
  const [back, forth] = table.querySelectorAll("button");
  const hidden = { visible: false, range, autorange: false };
  const layout = {
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "manual", aspectratio: { x: 1.9, y: 1.9, z: 1.9 }, camera, dragmode: "orbit" },
    margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "rgba(0,0,0,0)", uirevision: "same",
  };
  const config = {
    displaylogo: false, responsive: true, scrollZoom: false, // the wheel scrolls the page
    modeBarButtonsToRemove: ["tableRotation", "resetCameraLastSave3d", "hoverClosest3d"],
  };
  const trace = (mesh) => ({
    ...mesh.surface, type: "mesh3d", name: mesh.name, color: colour, hoverinfo: "skip", flatshading: false,
    lighting: { ambient: 0.4, diffuse: 0.75, specular: 0.1, roughness: 0.6, fresnel: 0.05 },
    lightposition: light,
  });
  let onScreen = false;
  const show = () => {
    const mesh = meshes[slider.value];
    name.value = mesh.name;
    back.disabled = Number(slider.value) === 0;
    forth.disabled = Number(slider.value) === meshes.length - 1;
    if (onScreen) Plotly.react(plot, [trace(mesh)], layout, config);
  };
  const step = (by) => {
    slider.value = Number(slider.value) + by;
    show();
  };
  slider.addEventListener("input", show);
  back.addEventListener("click", () => step(-1));
  forth.addEventListener("click", () => step(1));
  // A browser allows about sixteen 3D scenes at a time: those out of sight are given up, and keep their camera.
  new IntersectionObserver(([entry]) => {
    if (entry.isIntersecting === onScreen) return;
    onScreen = entry.isIntersecting;
    if (!onScreen) {
      layout.scene.camera = plot.layout.scene.camera;
      Plotly.purge(plot);
    }
    show();
  }).observe(plot);
  show();
}
