"""The style sheet: system fonts, light and dark by the reader's choice, one column on a phone."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfa; --panel: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #dcdfe4;
  --quiet: #eef0f3; --link: #0b5cad;
  --good: #17663a; --good-bg: #e5f4ea; --bad: #a81c1c; --bad-bg: #fdeaea;
  --warn: #85500a; --warn-bg: #fdf1dc;
  --kept: #8897ad; --wider: #0f9b8e; --new: #8457d6; --kernel: #c98a12; --gone: #c2352b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --panel: #1b1f25; --ink: #e7eaee; --soft: #a2abb6; --line: #343a43;
    --quiet: #252a31; --link: #7db7f5;
    --good: #7fdca2; --good-bg: #16301f; --bad: #ff9a93; --bad-bg: #3a1b1b;
    --warn: #f2c274; --warn-bg: #362813;
    --kept: #8494ab; --wider: #2bb8a9; --new: #a583ee; --kernel: #dba43c; --gone: #ef6a5f;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main, footer { max-width: 940px; margin: 0 auto; padding: 0 20px; }
footer { color: var(--soft); font-size: 13px; padding-top: 8px; padding-bottom: 40px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 21px; line-height: 1.3; margin: 0 0 10px; letter-spacing: -0.005em; }
h3 { font-size: 16px; margin: 24px 0 4px; }
p { margin: 0 0 12px; max-width: 70ch; overflow-wrap: anywhere; }
section { padding: 26px 0 22px; border-top: 1px solid var(--line); }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.88em; }
code { unicode-bidi: isolate; overflow-wrap: anywhere; }
pre {
  margin: 0 0 12px; padding: 14px 16px; overflow-x: auto; background: var(--panel);
  border: 1px solid var(--line); border-radius: 8px; line-height: 1.5;
}
a { color: var(--link); }
small, figcaption, .note { color: var(--soft); font-size: 14px; }
figure { margin: 0; min-width: 0; }
sup { line-height: 0; }

.verdict { padding: 26px 0 20px; border: 0; }
.verdict .kicker { color: var(--soft); font-size: 14px; margin: 0 0 8px; }
.badge {
  display: flex; gap: 14px; align-items: center; padding: 16px 18px; border-radius: 12px;
  margin: 0 0 14px;
}
.badge .sign { font-size: 26px; line-height: 1; font-weight: 700; flex: none; }
.badge p { margin: 4px 0 0; color: inherit; font-size: 15px; }
.good { background: var(--good-bg); color: var(--good); }
.bad { background: var(--bad-bg); color: var(--bad); }
.warn { background: var(--warn-bg); color: var(--warn); }
.reason { font-size: 17px; }
.tiles {
  display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 10px; margin: 16px 0 12px;
}
.tile {
  background: var(--panel); border: 1px solid var(--line); border-radius: 10px;
  padding: 10px 14px;
}
.tile > b { display: block; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile > span { display: block; color: var(--soft); font-size: 13px; line-height: 1.35; }
nav { font-size: 14px; color: var(--soft); line-height: 1.9; }
nav { display: flex; flex-wrap: wrap; gap: 0 16px; }
.whole { white-space: nowrap; }

.scroll { overflow-x: auto; margin: 0 0 12px; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 5px 18px 5px 0; white-space: nowrap; }
td:last-child { white-space: normal; min-width: 8em; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
tr + tr td { border-top: 1px solid var(--quiet); }
dl { margin: 0 0 12px; font-size: 14px; }
dl > div { display: grid; grid-template-columns: 170px minmax(0, 1fr); gap: 14px; padding: 4px 0; }
dt { color: var(--soft); overflow-wrap: anywhere; }
dd { margin: 0; overflow-wrap: anywhere; }
dl dl > div { grid-template-columns: 130px minmax(0, 1fr); padding: 0; }
details { margin: 8px 0 12px; }
summary { cursor: pointer; color: var(--link); font-size: 14px; padding: 4px 0; }
details[open] > summary { margin-bottom: 8px; }

.legend { font-size: 13px; color: var(--soft); margin: 0 0 10px; max-width: none; }
.key { display: inline-block; margin-right: 18px; white-space: nowrap; }
.swatch {
  display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px;
  vertical-align: -1px;
}
.swatch.kept { background: var(--kept); } .swatch.wider, .swatch.copy { background: var(--wider); }
.swatch.new, .swatch.fresh { background: var(--new); } .swatch.kernel { background: var(--kernel); }
.swatch.gone { background: var(--gone); } .swatch.zero { border: 1px solid var(--soft); }
.swatch.negative { background: rgb(45 120 230); }
.swatch.positive { background: rgb(226 74 51); }
.stage {
  display: grid; grid-template-columns: 190px minmax(0, 1fr) minmax(0, 1fr); gap: 0 22px;
  padding: 7px 0; border-top: 1px solid var(--quiet); align-items: center;
}
.stage.heads { color: var(--soft); font-size: 13px; border: 0; padding: 0 0 4px; }
.stage-name { font-size: 14px; line-height: 1.3; min-width: 0; }
.stage-name small { display: block; font-size: 12.5px; }
.stage svg { display: block; width: 100%; }
svg .kept, svg .within { fill: var(--kept); }
svg .wider, svg .copy { fill: var(--wider); } svg .new, svg .fresh { fill: var(--new); }
svg .kernel { fill: var(--kernel); } svg .gone, svg .over, svg .departs { fill: var(--gone); }
svg .over { fill-opacity: 0.55; } .histogram .over { fill-opacity: 1; }
svg .zero { fill: none; stroke: var(--soft); stroke-width: 0.5; }
svg .block { fill: var(--quiet); } svg .new-block { fill: var(--new); fill-opacity: 0.16; }
svg .frame { fill: none; stroke: var(--line); stroke-width: 1; vector-effect: non-scaling-stroke; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg line { vector-effect: non-scaling-stroke; }
svg line.tolerance { stroke: var(--gone); stroke-width: 1.5; }
svg line.yardstick { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 4 3; }
svg text { fill: var(--soft); font-size: 10px; font-family: inherit; }
svg text.tolerance { fill: var(--gone); }
image { image-rendering: pixelated; }
.histograms { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 12px 28px; }
.histogram { display: block; width: 100%; max-width: 460px; }
.plot { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 8px; margin: 0 0 12px; }
.scale { display: flex; flex-direction: column; justify-content: space-between; height: 160px; }
.scale, .ends { color: var(--soft); font-size: 12px; }
.columns { display: block; width: 100%; height: 160px; border-bottom: 1px solid var(--line); }
.ends { display: flex; justify-content: space-between; gap: 20px; padding-top: 4px; }
.maps { display: grid; gap: 20px; align-items: start; margin: 6px 0 22px; }
.maps figcaption { font-size: 13px; line-height: 1.35; padding-bottom: 4px; }
.heat { display: block; width: 100%; }

@media (max-width: 640px) {
  main, footer { padding: 0 16px; }
  h1 { font-size: 24px; }
  .verdict { padding-top: 16px; }
  .badge { padding: 12px 14px; margin-bottom: 10px; }
  .reason { font-size: 16px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }
  .tile { padding: 8px 10px; } .tile > b { font-size: 18px; }
  .stage { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 2px 12px; }
  .stage-name { grid-column: 1 / -1; } .stage-name small { display: inline; margin-left: 8px; }
  .stage.heads .stage-name { display: none; }
  .histograms { grid-template-columns: minmax(0, 1fr); }
  dl > div, dl dl > div { grid-template-columns: minmax(0, 1fr); gap: 0; }
}
@media print {
  body { font-size: 12px; } nav { display: none; } section { break-inside: avoid-page; }
}
"""
