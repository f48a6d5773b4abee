"""The page's look: one column on a phone, more on a wide screen; light or dark as the reader has it."""

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --wrong: #d55e00 }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 80rem }
h1 { font-size: 1.5rem; margin: 0; line-height: 1.25 } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1rem; margin: .8rem 0 .3rem }
h4 { font-size: .95rem; margin: 0 0 .2rem }
h4 small { font-weight: normal; opacity: .7 }
header p { margin: .3rem 0; opacity: .75; overflow-wrap: anywhere } nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem }
.scroll { overflow-x: auto; --edge: linear-gradient(to left, #8886, #8880) right / 1rem 100% no-repeat scroll }
.scroll { background: linear-gradient(to left, Canvas 50%, #0000) right / 2rem 100% no-repeat local, var(--edge) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem }
th, td { padding: .25rem .6rem; text-align: left; border-bottom: 1px solid var(--line) } th[scope=row] { font-weight: normal }
thead th { vertical-align: bottom; font-weight: 600 } .number { text-align: right } td.number { white-space: nowrap }
.scroll tbody th { min-width: 5.5rem; position: sticky; left: 0; background: Canvas }
.note { font-size: .85rem; opacity: .8; margin: .4rem 0 }
.mark { border: 1px solid; border-radius: .3rem; padding: 0 .25rem; font-size: .8em }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; margin: .3rem 0 }
.keys i, th i { display: inline-block; width: .8em; height: .8em; border-radius: .15em; margin-right: .35em }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(28rem, 100%), 1fr)); gap: .5rem 1.5rem }
.chart svg { width: 100%; height: auto; font-size: 13px } .chart.narrow { max-width: 36rem }
.bar { display: inline-block; width: 4.5rem; height: .7em; background: var(--soft); margin-right: .4rem }
.value { display: inline-block; min-width: 3em }
.bar i { display: block; height: 100% }
.matrices { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); gap: .5rem 1.5rem }
.matrices > div { min-width: 0 }
img.matrix { width: 100%; max-width: 34rem; image-rendering: pixelated; border: 1px solid var(--line) }
table.confusion { font-size: .75rem; table-layout: fixed }
.confusion td, .confusion th { padding: .1rem .2rem; border: 0; text-align: center }
.scroll table.confusion tbody th { min-width: 0 }
.confusion tbody th { text-align: right; padding-right: .4rem; white-space: nowrap }
.confusion tbody td { min-width: 1.85rem; height: 1.7rem }
.turned thead th { height: 5.2rem; vertical-align: bottom }
.turned thead th span { writing-mode: vertical-rl; transform: rotate(180deg) }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)) }
.gallery { gap: .8rem 1.5rem; margin-top: .6rem }
.class { border-top: 1px solid var(--line); padding-top: .4rem }
.strip { display: flex; flex-wrap: wrap; gap: .2rem; margin: .3rem 0 }
.strip > span { flex-basis: 100%; font-size: .75rem; opacity: .7; line-height: 1 }
figure { margin: 0; width: 3.6rem; border: 2px solid transparent; border-radius: .25rem; padding: 1px }
figure img { width: 100%; display: block; image-rendering: pixelated } figure.wrong { border-color: var(--wrong) }
figcaption { font-size: .65rem; line-height: 1.2; text-align: center; overflow-wrap: anywhere }
figcaption em { display: block; font-style: normal; font-weight: 600; color: var(--wrong) }
details { margin: .6rem 0 }
summary { cursor: pointer; font-weight: 600 }
pre { overflow-x: auto; font-size: .8rem; background: var(--soft); padding: .6rem }
"""
