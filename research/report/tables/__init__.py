"""Tables of a report: cells, scores, statistics, the study."""
