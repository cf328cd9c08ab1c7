"""Devices: how long does this model file take on that device?"""
