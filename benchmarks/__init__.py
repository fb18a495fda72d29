"""What measures this project, and the peers it is measured against; `README.md` here says how to run each."""
