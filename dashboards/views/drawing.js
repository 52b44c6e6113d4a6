// The browser's half of drawing.py: one drawing for as long as its page is open, which plotly.js changes in place.

let library = null;

function plotly(address) {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = new URL(address, document.baseURI);
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => reject(new Error(`plotly.js is not at ${script.src}`));
    document.head.append(script);
  });
  return library;
}

// The page's own colours and letters, in the light and in the dark theme.
function themed(layout, style) {
  const text = style.getPropertyValue("--st-text-color"), grid = style.getPropertyValue("--st-border-color");
  const page = style.getPropertyValue("--st-background-color"), family = style.getPropertyValue("--st-font");
  const clear = "rgba(0, 0, 0, 0)", axes = {};
  for (const name of Object.keys(layout).filter(name => /^[xy]axis\d*$/.test(name))) {
    axes[name] = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true, ...layout[name] };
  }
  const hoverlabel = { bgcolor: page, bordercolor: grid, font: { color: text, family } };
  return { paper_bgcolor: clear, plot_bgcolor: clear, font: { color: text, family }, hoverlabel, ...layout, ...axes };
}

export default async function ({ data, parentElement, setTriggerValue }) {
  let drawing = parentElement.querySelector(".lasting");
  if (!drawing) {
    drawing = document.createElement("div");
    drawing.className = "lasting";
    parentElement.append(drawing);
  }
  const Plotly = await plotly(data.plotly);
  const { data: traces, layout } = JSON.parse(data.figure);
  await Plotly.react(drawing, traces, themed(layout, getComputedStyle(parentElement)), { responsive: true, ...data.config });
  drawing.dataset.drawn = Number(drawing.dataset.drawn ?? 0) + 1; // how often; whoever waits for a change can see it
  drawing.removeAllListeners("plotly_selected");
  drawing.removeAllListeners("plotly_click");
  drawing.on("plotly_selected", event => event?.range?.x && setTriggerValue("looked", { box: [{ x: event.range.x }] }));
  drawing.on("plotly_click", event => {
    const points = event.points.filter(point => point.customdata).map(({ customdata }) => ({ customdata }));
    if (points.length) setTriggerValue("looked", { points });
  });
}
