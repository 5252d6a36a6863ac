// Which texts of a figure lie upon one another, or beyond its edge: tick labels, titles, notes, legends. Corners, since labels may be slanted.
(graph) => {
  const size = graph.getBoundingClientRect();
  const corners = (text) => {
    const box = text.getBBox(), to = text.getScreenCTM(), point = graph.querySelector("svg").createSVGPoint();
    return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([right, down]) => {
      point.x = box.x + right * box.width;
      point.y = box.y + box.height * (0.2 + 0.6 * down);  // letters do not fill their line
      const at = point.matrixTransform(to);
      return [at.x - size.x, at.y - size.y];
    });
  };
  const apart = (one, other) => [one, other].some((corners) => corners.some((corner, at) => {
    const next = corners[(at + 1) % 4], axis = [corner[1] - next[1], next[0] - corner[0]];
    const along = (points) => points.map(([x, y]) => x * axis[0] + y * axis[1]);
    const [a, b] = [along(one), along(other)];
    const slack = 1.5 * Math.hypot(...axis);
    return Math.max(...a) <= Math.min(...b) + slack || Math.max(...b) <= Math.min(...a) + slack;
  }));
  const kinds = "g[class$=tick] text, g[class^=g-] text, .annotation-text, [class$=title-text], .cbaxis text, .cbtitle text, .legendtext";
  const seen = [...new Set(document.querySelectorAll(kinds))]
    .map((text) => text.closest("text") || text)
    .filter((text) => text.textContent.trim() && text.getBBox().width && getComputedStyle(text).opacity > 0.1)
    .map((text) => ({ said: text.textContent.trim(), at: corners(text), tick: Boolean(text.closest("g[class$=tick]")) }));
  const faults = [];
  seen.forEach((one, at) => {
    if (one.at.some(([x, y]) => x < -2 || y < -2 || x > size.width + 2 || y > size.height + 2)) faults.push(`${one.said} | cut off`);
    seen.slice(at + 1).forEach((other) => { if (!apart(one.at, other.at)) faults.push(`${one.said} | ${other.said}`); });
  });
  return { faults, ticks: seen.filter((one) => one.tick).length };
}
