variable "name" {
  description = "Name of the VPC and prefix of everything in it."
  type        = string
}

variable "cidr" {
  description = "IPv4 range of the VPC, /16 to /20. Three quarters are private subnets, the last quarter is public."
  type        = string

  validation {
    condition     = try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20, false)
    error_message = "The range must be from /16, the largest VPC, to /20, which has a thousand pod addresses per zone."
  }
}

variable "nat_gateway_per_zone" {
  description = "Create one NAT gateway per zone instead of one in all."
  type        = bool
}

variable "log_retention_days" {
  description = "Days that flow logs are kept."
  type        = number
}
