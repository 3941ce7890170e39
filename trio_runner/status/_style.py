"""The page's style and the short script that keeps it live; it needs no other files."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f3f4f6; --card: #fff; --ink: #1a1d21; --soft: #59616b; --line: #dcdfe3;
  --ok: #1a7f37; --warning: #8f5400; --critical: #c21f1f; --one: #0b62c4; --two: #7a3fb0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1d2125; --ink: #e8eaed; --soft: #a3abb5; --line: #363c43;
    --ok: #4cc36a; --warning: #e5a93c; --critical: #ff7a72; --one: #64aaf5; --two: #c295ee;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem; max-width: 84rem; background: var(--page); color: var(--ink);
  font: 1rem/1.45 system-ui, sans-serif; font-variant-numeric: tabular-nums;
}
h1, h2, h3, p, dl, dd, ul { margin: 0; padding: 0; }
header { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
header, #stale { margin-bottom: 1rem; }
h1 { font-size: 1.35rem; }
h2 { font-size: 1.1rem; overflow-wrap: anywhere; }
h3 { font-size: .8rem; font-weight: 400; color: var(--soft); }
.soft { color: var(--soft); font-size: .875rem; font-weight: 400; }
.ok { color: var(--ok); } .warning { color: var(--warning); } .critical { color: var(--critical); }
.units {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 23rem), 1fr));
}
article {
  background: var(--card); border: 1px solid var(--line); border-left: .35rem solid currentColor;
  border-radius: .5rem; padding: .9rem 1rem; display: flex; flex-direction: column; gap: .7rem;
}
article > * { color: var(--ink); }
.top, .plot { display: flex; justify-content: space-between; }
.top { flex-wrap: wrap; gap: .1rem .8rem; align-items: baseline; }
.state { font-weight: 600; }
ul { list-style: none; display: grid; gap: .3rem; }
li { overflow-wrap: anywhere; }
dl {
  display: grid; gap: .5rem .8rem; grid-template-columns: repeat(auto-fit, minmax(6.2rem, 1fr));
}
dt { font-size: .8rem; color: var(--soft); }
dd { font-weight: 600; }
progress { width: 100%; height: .7rem; accent-color: var(--one); }
.plots { display: grid; gap: .5rem; }
svg { display: block; width: 100%; height: 3.2rem; border-bottom: 1px solid var(--line); }
path { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.one { stroke: var(--one); } .two { stroke: var(--two); }
#stale {
  padding: .6rem .9rem; border-radius: .5rem; font-weight: 600;
  background: var(--critical); color: var(--card);
}
"""

SCRIPT = """
const stale = document.getElementById("stale");
let seen = new Date();
async function look() {
  try {
    const signal = AbortSignal.timeout(5000);
    const answer = await fetch(location.href, {cache: "no-store", signal});
    if (!answer.ok) throw new Error(answer.status);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    seen = new Date();
    stale.hidden = true;
  } catch {
    stale.textContent = "No answer: this is how it was at " + seen.toLocaleTimeString() + ".";
    stale.hidden = false;
    document.title = "no answer";
  }
  setTimeout(look, document.hidden ? 10000 : 2000);
}
setTimeout(look, 2000);
"""
