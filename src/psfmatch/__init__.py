"""psfmatch"""
