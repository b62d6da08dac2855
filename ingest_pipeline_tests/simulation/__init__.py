"""The whole pipeline in one thread and in memory, under any order of what can happen to it."""
