"""Reports that people open: one HTML page per source and per verdict, Data Docs of a run, and an index of them all.

Pages need no network and no JavaScript. They lie in the store, named by what they tell about, and are never rewritten;
`latest.html` beside them is a copy of the newest.
"""
