"""What every connector and dialect shares, free of any database driver.

``settings`` turns URLs and parameters into resolved settings, ``tokens`` signs for them, ``tls`` chooses the TLS
defaults, ``retry`` and ``transaction`` replay what lost to a concurrent transaction, ``errors`` names what goes wrong.
"""
