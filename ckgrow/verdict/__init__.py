"""The verdict: do two networks compute the same function?"""
