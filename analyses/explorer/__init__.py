"""The live page: a model in the browser, a click and what it changes. Only `page`, `callbacks` and `serve` know of Dash."""
