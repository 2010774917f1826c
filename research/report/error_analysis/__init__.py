"""Tables and figures that compare predictions example by example."""
