"""The leaderboard: rows with the episodes behind them, scored again whenever they are shown."""
