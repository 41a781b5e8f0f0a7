"""Pictures and pages: everything drawn is drawn from an `Exhibit`; nothing here knows a network."""
