"""A phone for the tests: the real adb client, a daemon of ours, and a sandbox."""
