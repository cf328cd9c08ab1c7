"""Search: which architecture is the most accurate within a latency?"""
