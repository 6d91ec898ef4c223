"""Our rollouts inside other trainers; environments without rollouts of ours are in `search_env.interop`."""
