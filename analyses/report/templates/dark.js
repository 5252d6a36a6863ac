// Figures on dark paper: `inDark(figure, paper)`.
function inDark(figure, paper) {
  const pen = document.createElement("canvas").getContext("2d");
  // Dark paper: grey tones change sides, pale fills turn deep, and colours that would be lost are lifted.
  function turned(color, line) {
    pen.fillStyle = "#000";
    pen.fillStyle = color;
    const found = pen.fillStyle, parts = found.startsWith("#")
      ? [1, 3, 5].map((at) => parseInt(found.slice(at, at + 2), 16)) : found.match(/[\d.]+/g).map(Number);
    const [r, g, b] = parts.slice(0, 3).map((value) => value / 255), alpha = parts.length > 3 ? parts[3] : 1;
    const most = Math.max(r, g, b), least = Math.min(r, g, b), light = (most + least) / 2, wide = most - least;
    const full = wide === 0 ? 0 : wide / (1 - Math.abs(2 * light - 1));
    let hue = wide === 0 ? 0 : most === r ? ((g - b) / wide) % 6 : most === g ? (b - r) / wide + 2 : (r - g) / wide + 4;
    hue *= 60;
    let turn = light;
    if (wide < 0.12) turn = Math.min(0.9, Math.max(0.12, 1.03 - light));
    else if (light > 0.72) turn = 0.1 + 0.6 * (1 - light);
    else if (0.21 * r * r + 0.72 * g * g + 0.07 * b * b < 0.17) turn = 0.45;  // about its luminance
    // A line that lets the paper through would be lost on a dark one.
    if (line && alpha < 1) turn = Math.max(turn, 0.62);
    const solid = line ? Math.cbrt(alpha) : alpha;
    return "hsla(" + hue.toFixed(0) + ", " + (100 * Math.min(full, light > 0.72 ? 0.45 : 1)).toFixed(0) + "%, " + (100 * turn).toFixed(0) + "%, " + solid + ")";
  }
  const isColor = (value) => typeof value === "string" && CSS.supports("color", value);
  function walked(value, named, line) {
    if (Array.isArray(value)) return value.map((one) => walked(one, named, line));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) =>
        [name, name === "colorscale" || name === "text" || name === "meta" ? one : walked(one, /color/i.test(name), line || name === "line")]));
    }
    return named && isColor(value) ? turned(value, line) : value;
  }
  const pale = (trace) => Array.isArray(trace.colorscale) &&
    trace.colorscale.every(([, color]) => { pen.fillStyle = color; return parseInt(pen.fillStyle.slice(1, 3), 16) > 150 && parseInt(pen.fillStyle.slice(3, 5), 16) > 150; });
  const axes = (trace) => (trace.xaxis || "x") + (trace.yaxis || "y");
  const bright = new Set(figure.data.filter((trace) => trace.type === "heatmap" && !pale(trace)).map(axes));
  const data = figure.data.map((trace) => {
    if (bright.has(axes(trace))) return trace;  // what lies on a heatmap is to be seen on its colours
    const turnedTrace = walked(trace, false);
    if (trace.type === "heatmap") turnedTrace.colorscale = trace.colorscale.map(([at, color]) => [at, turned(color)]);
    return turnedTrace;
  });
  const layout = walked(figure.layout, false);
  for (const one of [layout, layout.template.layout]) Object.assign(one, { paper_bgcolor: paper, plot_bgcolor: paper });
  (layout.annotations || []).forEach((note, at) => {
    if (bright.has(note.xref + note.yref)) layout.annotations[at] = figure.layout.annotations[at];
  });
  return { data, layout };
}
