"""How the page looks: calm, on light or dark ground, on paper, on a phone."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5b636d; --line: #d8dce1;
  --faint: #eceef1; --ground: #fff; --plain: #f3f4f6;
  --s0: #1768ac; --s1: #c8591a; --s2: #12805c; --s3: #9a3d8c; --s4: #8b6c00; --s5: #b9363c;
  --s6: #4f58b8; --s7: #5d6670; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa3ad;
  --line: #363c44; --faint: #262b31; --ground: #16191d; --plain: #1f2328;
  --s0: #63aeea; --s1: #f0955a; --s2: #4cc39a; --s3: #d284c6; --s4: #d2b04a; --s5: #ee7f82;
  --s6: #98a0f2; --s7: #a3acb6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 66rem; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.7rem; font-weight: 650; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; font-weight: 650; margin: 3rem 0 .3rem; padding-top: 1rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere; }
h3 { font-size: 1rem; font-weight: 650; margin: 1.8rem 0 .5rem; overflow-wrap: anywhere; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
.soft, figcaption, small { color: var(--soft); }
small { font-size: .82rem; display: block; line-height: 1.35; font-weight: 400; }
.wide { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums;
  width: 100%; border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); }
th, td { padding: .32rem .7rem; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
thead th { border-bottom: 1px solid var(--line); color: var(--soft); font-weight: 500; }
td.text, th.text, tbody th { text-align: left; }
td.text { overflow-wrap: anywhere; white-space: normal; min-width: 8rem; }
th:first-child, td.protocol, .plain td:first-child { padding-left: .1rem; text-align: left; }
th:last-child, td:last-child { padding-right: .1rem; }
tr.rule > * { border-top: 1px solid var(--faint); }
tr.group > th { padding-top: .9rem; border-top: 1px solid var(--line); overflow-wrap: anywhere;
  white-space: normal; }
tr.group:first-child > th { border-top: 0; padding-top: .5rem; }
td.protocol { white-space: normal; min-width: 9rem; max-width: 15rem; }
td.boxes { text-align: left; }
td.ends { color: var(--soft); padding-left: 0; }
.best { font-weight: 700; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(18rem, 100%), 1fr));
  gap: 1.2rem 1.6rem; margin: .8rem 0; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
.charts figure { max-width: 30rem; }
figcaption { font-size: .86rem; line-height: 1.4; margin-top: .2rem; }
.charts figcaption { padding-left: .2rem; }
svg { display: block; width: 100%; height: auto; }
svg.chart text { font-size: 10.5px; fill: var(--soft); }
svg.chart .name { fill: var(--ink); }
.grid { stroke: var(--faint); }
.axis { stroke: var(--soft); }
.truth { stroke: var(--soft); stroke-dasharray: 2 3; fill: none; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; }
.line.dashed { stroke-dasharray: 5 3; }
.bar, .dot { fill: currentColor; }
.bar.dashed { fill-opacity: .55; }
.whisker { stroke: var(--ink); stroke-width: 1; fill: none; opacity: .75; }
.hit { fill: transparent; }
.hit:hover { fill: var(--soft); fill-opacity: .3; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.s6 { color: var(--s6); } .s7 { color: var(--s7); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; padding: 0;
  margin: .6rem 0 .2rem; font-size: .88rem; }
.legend li { overflow-wrap: anywhere; min-width: 0; }
.key { display: inline-block; width: 1.3rem; border-top: 3px solid currentColor;
  vertical-align: .25em; margin-right: .5rem; }
.key.dashed { border-top-style: dashed; }
.point { display: inline-block; width: .6rem; height: .6rem; border-radius: 50%;
  background: currentColor; margin-right: .5rem; }
.point.green { color: #23c552; } .point.red { color: #ff4d4d; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr));
  gap: .9rem; margin: .5rem 0 1rem; }
.face svg { border-radius: 3px; }
.face figcaption { font-size: .8rem; }
.face figcaption span { display: block; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; color: var(--ink); }
.ground { fill: var(--plain); }
.true { fill: #23c552; } .predicted { fill: #ff4d4d; }
.true, .predicted { stroke: #0008; stroke-width: .5; }
.apart { stroke: #ffd23f; stroke-width: .9; opacity: .9; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 40rem) { body { padding: 1.3rem .9rem 3rem; } h2 { margin-top: 2rem; }
  .faces { grid-template-columns: repeat(3, 1fr); gap: .6rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  h2, h3, .legend, h2 + p { break-after: avoid; } p { break-inside: avoid; }
  small { font-size: 7pt; }
  .faces { grid-template-columns: repeat(6, 1fr); } tr { break-inside: avoid; }
  .wide { overflow: visible; } table { font-size: 8pt; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
