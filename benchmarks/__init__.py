"""Measures the event handler: the real process between a simulated cluster and a collector, each in a process of its
own.
"""
