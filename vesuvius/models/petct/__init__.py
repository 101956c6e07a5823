"""CoCoSeg: two encoders for CT and PET, channel attention, one decoder."""
