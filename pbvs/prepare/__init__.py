"""Every capture onto its location's grid."""
