"""``rheos evaluate``: how good the recommendations are, on data whose future is known."""

from cyclopts import App

from rheos.cli.evaluate import cross_validate, prequential, split, time_split

app = App(name="evaluate", help="Measure recommendations on data whose future is known.")
app.command(prequential.command, name="prequential")
app.command(time_split.command, name="time-split")
app.command(cross_validate.command, name="cross-validate")
app.command(split.command, name="split")
