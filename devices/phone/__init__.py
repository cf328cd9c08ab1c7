"""Android phones as devices: what times models there, and what the phone is and was like."""
