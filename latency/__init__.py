"""Latency models: how long would a block, architecture or model take, without the device?"""
