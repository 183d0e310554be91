variable "name" {
  description = "Prefix of the names of the table and the bucket."
  type        = string
}

variable "deletion_protection" {
  description = "Reject the deletion of the table, and of the bucket while it contains an object."
  type        = bool
}

variable "noncurrent_days" {
  description = "Days that a deleted image can be restored."
  type        = number
}
