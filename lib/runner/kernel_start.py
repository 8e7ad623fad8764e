"""What each kernel of the lab executes first, as its PYTHONSTARTUP. It leaves no name behind."""

from IPython import get_ipython

get_ipython().run_line_magic("load_ext", "lib.runner.hints")
